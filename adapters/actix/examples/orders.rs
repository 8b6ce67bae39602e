//! A service whose `POST /orders` is idempotent by three lines. The closure's version of it is `examples/orders.rs` of payonce.
//!
//! ```text
//! export DATABASE_URL=postgres://…  # a database of its own: other programs number their migrations alike
//! cargo run -p payonce-actix --example orders        # on port 8081, or on PORT; 0 picks one
//!
//! curl -i http://127.0.0.1:8081/orders -H 'X-Customer: acme' -H 'Idempotency-Key: cart-17' \
//!   -H 'Content-Type: application/json' -d '{"sku": "tea", "quantity": 2}'
//! ```
//!
//! Sent again, it gets the same bytes, with `Idempotent-Replayed: true`. With another quantity it gets 422. An order of 1,000 gets 409,
//! and gets it again under its key even when there is enough: a failure is an outcome, too. An order that calls another system is in
//! `charged_orders.rs`.

use std::error::Error;
use std::fmt;

use actix_web::http::header::{HeaderMap, LOCATION};
use actix_web::web::{self, Json, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError};
use payonce_actix::payonce_engine::{
    self, Engine, FingerprintSecrets, IdempotencyConfig, database::pool_options,
};
use payonce_actix::{Idempotent, Tx};
use serde::Deserialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

fn app(engine: &Engine, routes: &mut ServiceConfig) {
    routes.service(
        web::resource("/orders").post(create_order).wrap(
            Idempotent::new(engine)
                .operation("create_order")
                // In place of whoever was authenticated. A client must not be able to choose it.
                .owner(|request| header(request.headers(), "x-customer")),
        ),
    );
}

#[derive(Deserialize)]
struct NewOrder {
    sku: String,
    quantity: i32,
}

/// Runs once for a key. What it writes, the key and its answer are committed together, or not at all.
async fn create_order(
    request: HttpRequest,
    mut tx: Tx,
    Json(order): Json<NewOrder>,
) -> Result<HttpResponse, Failed> {
    let id = Uuid::now_v7();
    sqlx::query("insert into orders (order_id, customer, sku, quantity) values ($1, $2, $3, $4)")
        .bind(id)
        .bind(header(request.headers(), "x-customer"))
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
        return Ok(HttpResponse::Conflict().json(body));
    }
    let body = json!({"id": id, "sku": order.sku, "quantity": order.quantity});
    let mut created = HttpResponse::Created();
    Ok(created
        .append_header((LOCATION, format!("/orders/{id}")))
        .json(body))
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// A query that failed: 500, nothing is stored, and the key is still good.
#[derive(Debug)]
struct Failed(sqlx::Error);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a query failed")
    }
}

impl ResponseError for Failed {
    fn error_response(&self) -> HttpResponse {
        // The cause is for us, not for the client.
        eprintln!("orders: {}", self.0);
        HttpResponse::InternalServerError().finish()
    }
}

// tokio's own runtime rather than `actix_web::main`: the engine's tasks run in the one in which it is started, and this one has a
// thread for each core.
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
    let of_the_app = engine.clone();
    let server = HttpServer::new(move || App::new().configure(|routes| app(&of_the_app, routes)))
        .disable_signals()
        .bind(format!("127.0.0.1:{port}"))?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    let server = server.run();
    let handle = server.handle();
    tokio::spawn(async move {
        drop(told_to_stop().await);
        // Waits for handlers whose client has hung up, too.
        payonce_actix::stop(&handle, &engine).await;
    });
    server.await?;
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

    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::web::Bytes;
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tokio::task::LocalSet;

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
            let request = TestRequest::post()
                .uri("/orders")
                .insert_header(("x-customer", "acme"))
                .insert_header(("idempotency-key", key))
                .set_json(json!({"sku": "tea", "quantity": quantity}));
            // A handler runs in a task of its worker's thread. A worker of actix-web has such a set, and a test of sqlx does not.
            let exchange = async {
                let service =
                    init_service(App::new().configure(|routes| app(&self.0, routes))).await;
                let response = call_service(&service, request.to_request()).await;
                let replayed = response.headers().contains_key("idempotent-replayed");
                (
                    response.status().as_u16(),
                    replayed,
                    read_body(response).await,
                )
            };
            LocalSet::new().run_until(exchange).await
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
