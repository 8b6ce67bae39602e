//! A service whose `POST /orders` is made idempotent by payonce's engine: the order, the stock, the key and the stored answer are
//! committed together, or not at all.
//!
//! ```text
//! export DATABASE_URL=postgres://…
//! cargo run --example orders        # on port 8081, or on PORT; 0 picks one
//!
//! curl -i http://127.0.0.1:8081/orders -H 'Idempotency-Key: cart-17' \
//!   -H 'Content-Type: application/json' -d '{"sku": "tea", "quantity": 2}'
//! ```
//!
//! Sent again, the request gets the same bytes, with `Idempotent-Replayed: true`. With another quantity it gets 422. An order of
//! 1,000 gets 409, and gets it again under its key even if there is enough by then, because a failure is an outcome, too.

use std::env;
use std::error::Error;

use actix_web::web::{self, Data, Json, JsonConfig};
use actix_web::{App, HttpResponse, HttpServer};
use anyhow::Context;
use payonce::database::{self, DatabaseSettings};
use payonce::http::{KeyHeader, answer_response};
use payonce::idempotency::{
    Engine, FingerprintSecrets, IdempotencyConfig, Outcome, ScopedKey, StoredResponse, Transaction,
};
use payonce::problem::{Code, Problem};
use payonce::telemetry::{self, LogFormat};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// This service's own tables. The engine's tables are in the same database, so one transaction can write to both.
const SCHEMA: &str = "
    create table if not exists stock (
        sku      text primary key,
        quantity integer not null check (quantity >= 0)
    );
    insert into stock values ('tea', 100) on conflict do nothing;
    create table if not exists orders (
        order_id   uuid primary key,
        sku        text not null,
        quantity   integer not null check (quantity > 0),
        created_at timestamptz not null default now()
    );
";

/// A client's request. The fingerprint covers its serialized form, so white space and the order of fields in the client's JSON make
/// no difference.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    sku: String,
    quantity: u16,
}

async fn create_order(
    engine: Data<Engine>,
    // A request without a key, with two, or with an invalid one gets a 400 here.
    KeyHeader(key): KeyHeader,
    Json(order): Json<NewOrder>,
) -> Result<HttpResponse, Problem> {
    // An invalid request is refused before the engine sees it: nothing is stored, and the key is still good.
    if order.quantity == 0 {
        let detail = "quantity must be at least 1";
        return Err(Problem::new(Code::ValidationFailed, detail));
    }
    // The scope is chosen by the service, never by the client. A service with customers puts the authenticated customer in place of
    // "shop", so that the keys of different customers are different.
    let scoped_key = ScopedKey::new("shop", "create_order", key);
    let request = order.clone();
    let work = async move |mut tx: Transaction| place_order(&mut tx, order).await;
    // Each error that `?` returns is a problem of its own: another request under this key, the first still in progress, a database
    // that cannot be reached.
    let answer = engine.execute(&scoped_key, &request, work).await?;
    Ok(answer_response(answer))
}

/// Runs once for the key, in the transaction that also stores what it returns.
///
/// `Ok` is final, success or not. `Err` is for failures that may not happen the next time: nothing is stored, and a retry starts
/// from the beginning.
async fn place_order(
    tx: &mut Transaction,
    order: NewOrder,
) -> Result<Outcome, Box<dyn Error + Send + Sync>> {
    let (id, quantity) = (Uuid::now_v7(), i32::from(order.quantity));
    sqlx::query("insert into orders (order_id, sku, quantity) values ($1, $2, $3)")
        .bind(id)
        .bind(&order.sku)
        .bind(quantity)
        .execute(&mut **tx)
        .await?;
    let taken =
        sqlx::query("update stock set quantity = quantity - $2 where sku = $1 and quantity >= $2")
            .bind(&order.sku)
            .bind(quantity)
            .execute(&mut **tx)
            .await?;
    if taken.rows_affected() == 0 {
        // The insert above is undone: on `Failed`, the engine keeps the answer and nothing else.
        let body = json!({"code": "out-of-stock", "sku": order.sku});
        return Ok(Outcome::Failed(StoredResponse::json(409, &body)?));
    }
    let body = json!({"id": id, "sku": order.sku, "quantity": order.quantity});
    let created = StoredResponse::json(201, &body)?;
    Ok(Outcome::Completed(
        created.with_header("location", format!("/orders/{id}")),
    ))
}

// tokio's own runtime rather than `actix_web::main`: the engine runs its transactions in tasks of the runtime that it was
// started in, and this one has a thread for each core.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Internal causes go to the log, never into an answer.
    telemetry::init("warn".parse()?, LogFormat::for_stderr(), None);
    let pool = database::connect(&DatabaseSettings {
        url: env::var("DATABASE_URL")
            .context("DATABASE_URL is not set")?
            .into(),
        max_connections: 10,
        allow_unsafe: false,
    })
    .await?;
    // Applies all of payonce's migrations, so that it also runs on the database of a payonce service. Its tables of merchants and
    // payments stay empty. A service of one's own calls `payonce_engine::migrate` in its place: that creates the engine's tables only,
    // and records what it applied in a table of its own, so the service's sqlx migrations stay as they are.
    database::migrate(&pool).await?;
    sqlx::raw_sql(SCHEMA).execute(&pool).await?;

    // One engine per process. Without the secret, nobody can find the request of a fingerprint in a stolen database by trying. All
    // processes of a service have the same secret.
    let secret =
        env::var("ORDERS_FINGERPRINT_SECRET").unwrap_or_else(|_| "for development only".to_owned());
    let secrets = FingerprintSecrets::new(secret);
    let engine = Engine::start(pool, IdempotencyConfig::default(), &secrets).await?;

    let port = env::var("PORT").unwrap_or_else(|_| "8081".to_owned());
    let port: u16 = port.parse().context("PORT is not a port")?;
    let app_data = Data::new(engine.clone());
    let server = HttpServer::new(move || {
        let json = JsonConfig::default()
            .error_handler(|error, _| Problem::new(Code::MalformedJson, error.to_string()).into());
        App::new()
            .app_data(app_data.clone())
            .app_data(json)
            .route("/orders", web::post().to(create_order))
    })
    .bind(("127.0.0.1", port))?;
    for address in server.addrs() {
        println!("listening on http://{address}");
    }
    server.run().await?;
    // The work of a client that hung up may still be running. It ends before the process does.
    engine.finish().await;
    Ok(())
}
