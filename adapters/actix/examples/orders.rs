//! A service whose `POST /orders` is idempotent by three lines. The closure's version of it is `examples/orders.rs` of payonce.
//!
//! ```text
//! export DATABASE_URL=postgres://…
//! cargo run -p payonce-actix --example orders        # on port 8081, or on PORT; 0 picks one
//!
//! curl -i http://127.0.0.1:8081/orders -H 'X-Customer: acme' -H 'Idempotency-Key: cart-17' \
//!   -H 'Content-Type: application/json' -d '{"sku": "tea", "quantity": 2}'
//! ```
//!
//! Sent again, it gets the same bytes, with `Idempotent-Replayed: true`. With another quantity it gets 422. An order of 1,000 gets 409,
//! and gets it again under its key even when there is enough: a failure is an outcome, too.

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
        drop(tokio::signal::ctrl_c().await);
        // Waits for handlers whose client has hung up, too.
        payonce_actix::stop(&handle, &engine).await;
    });
    server.await?;
    Ok(())
}
