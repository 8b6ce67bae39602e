//! A service whose `POST /orders` is idempotent by three lines. The closure's version of it is `examples/orders.rs` of payonce.
//!
//! ```text
//! export DATABASE_URL=postgres://…  # a database of its own: other programs number their migrations alike
//! cargo run -p payonce-axum --example orders        # on port 8081, or on PORT; 0 picks one
//!
//! curl -i http://127.0.0.1:8081/orders -H 'X-Customer: acme' -H 'Idempotency-Key: cart-17' \
//!   -H 'Content-Type: application/json' -d '{"sku": "tea", "quantity": 2}'
//! ```
//!
//! Sent again, it gets the same bytes, with `Idempotent-Replayed: true`. With another quantity it gets 422. An order of 1,000 gets 409,
//! and gets it again under its key even when there is enough: a failure is an outcome, too. An order that calls another system is in
//! `charged_orders.rs`.

use std::error::Error;

use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::post};
use payonce_axum::payonce_engine::{
    self, Engine, FingerprintSecrets, IdempotencyConfig, database::pool_options,
};
use payonce_axum::{IdempotentLayer, Tx};
use serde::Deserialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

fn app(engine: &Engine) -> Router {
    let idempotent = IdempotentLayer::new(engine)
        .operation("create_order")
        // In place of whoever was authenticated. A client must not be able to choose it.
        .owner(|request| header(&request.headers, "x-customer"));
    // Around the handler. Around the router, its 404 for other paths would be idempotent, too.
    Router::new().route("/orders", post(create_order).layer(idempotent))
}

#[derive(Deserialize)]
struct NewOrder {
    sku: String,
    quantity: i32,
}

/// Runs once for a key. What it writes, the key and its answer are committed together, or not at all.
async fn create_order(
    headers: HeaderMap,
    mut tx: Tx,
    Json(order): Json<NewOrder>,
) -> Result<Response, Failed> {
    let id = Uuid::now_v7();
    sqlx::query("insert into orders (order_id, customer, sku, quantity) values ($1, $2, $3, $4)")
        .bind(id)
        .bind(header(&headers, "x-customer"))
        .bind(&order.sku)
        .bind(order.quantity)
        .execute(&mut *tx)
        .await?;
    let taken =
        sqlx::query("update stock set quantity = quantity - $2 where sku = $1 and quantity >= $2")
            .bind(&order.sku)
            .bind(order.quantity)
            .execute(&mut *tx)
            .await?;
    if taken.rows_affected() == 0 {
        // The insert above is undone with it.
        let body = json!({"code": "out-of-stock", "sku": order.sku});
        return Ok((StatusCode::CONFLICT, Json(body)).into_response());
    }
    let location = [(LOCATION, format!("/orders/{id}"))];
    let body = json!({"id": id, "sku": order.sku, "quantity": order.quantity});
    Ok((StatusCode::CREATED, location, Json(body)).into_response())
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A query that failed: 500, nothing is stored, and the key is still good.
struct Failed(sqlx::Error);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        // The cause is for us, not for the client.
        eprintln!("orders: {}", self.0);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = std::env::var("DATABASE_URL")?.parse()?;
    let pool = pool_options().connect_with(database).await?;
    payonce_engine::migrate(&pool).await?;
    sqlx::migrate!("examples/migrations").run(&pool).await?;
    // All processes of a service have the same.
    let secret = std::env::var("ORDERS_FINGERPRINT_SECRET")
        .unwrap_or_else(|_| "for development only".to_owned());
    let secrets = FingerprintSecrets::new(secret);
    let engine = Engine::start(pool, IdempotencyConfig::default(), &secrets).await?;

    let port = std::env::var("PORT").unwrap_or_else(|_| "8081".to_owned());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stop = async { drop(told_to_stop().await) };
    axum::serve(listener, app(&engine).into_make_service())
        .with_graceful_shutdown(stop)
        .await?;
    // A handler whose client has hung up may still be at work.
    engine.finish().await;
    Ok(())
}

/// Waits for Ctrl-C, or for what `docker stop`, Kubernetes and systemd send.
async fn told_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "it is all tests")]

    use axum::body::{Body, Bytes, to_bytes};
    use axum::http::Request;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tower::ServiceExt;

    use super::*;

    /// The service on a test's own database, as `main` makes it. The example's tables are there already.
    struct Shop(Engine);

    impl Shop {
        async fn open(database: PgConnectOptions) -> Self {
            let pool = pool_options()
                .max_connections(2)
                .connect_with(database)
                .await
                .expect("a pool");
            payonce_engine::migrate(&pool)
                .await
                .expect("the engine's tables");
            let secrets = FingerprintSecrets::new("of the tests");
            let engine = Engine::start(pool, IdempotencyConfig::default(), &secrets).await;
            Self(engine.expect("a fit pool"))
        }

        /// Status, whether it is a replay, and body.
        async fn order(&self, key: &str, quantity: i32) -> (u16, bool, Bytes) {
            let request = Request::post("/orders")
                .header("x-customer", "acme")
                .header("idempotency-key", key)
                .header("content-type", "application/json")
                .body(Body::from(
                    json!({"sku": "tea", "quantity": quantity}).to_string(),
                ))
                .expect("a request");
            let response = app(&self.0).oneshot(request).await.expect("a response");
            let replayed = response.headers().contains_key("idempotent-replayed");
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), usize::MAX)
                .await
                .expect("a body");
            (status, replayed, body)
        }

        /// Orders, and tea that is left.
        async fn books(&self) -> (i64, i32) {
            let books = "select (select count(*) from orders), (select quantity from stock where sku = 'tea')";
            sqlx::query_as(books)
                .fetch_one(self.0.pool())
                .await
                .expect("the books")
        }

        async fn close(self) {
            self.0.finish().await;
            self.0.pool().close().await;
        }
    }

    #[sqlx::test(migrations = "examples/migrations")]
    async fn an_order_sent_again_is_placed_once(_: PgPoolOptions, database: PgConnectOptions) {
        let shop = Shop::open(database).await;
        let (status, replayed, body) = shop.order("k", 2).await;
        assert_eq!((status, replayed), (201, false));
        assert_eq!(shop.order("k", 2).await, (201, true, body));
        assert_eq!(shop.order("k", 3).await.0, 422);
        assert_eq!(shop.books().await, (1, 98));
        shop.close().await;
    }

    #[sqlx::test(migrations = "examples/migrations")]
    async fn out_of_stock_is_an_outcome_that_leaves_no_order(
        _: PgPoolOptions,
        database: PgConnectOptions,
    ) {
        let shop = Shop::open(database).await;
        let (status, replayed, body) = shop.order("k", 1000).await;
        assert_eq!((status, replayed), (409, false));
        sqlx::query("update stock set quantity = 2000")
            .execute(shop.0.pool())
            .await
            .expect("a delivery");
        assert_eq!(shop.order("k", 1000).await, (409, true, body));
        assert_eq!(shop.books().await, (0, 2000));
        shop.close().await;
    }
}
