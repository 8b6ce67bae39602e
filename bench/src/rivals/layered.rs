//! One handler that makes one row in one transaction, three times: wrapped in payonce's actix middleware in one line; bare, with a
//! transaction of its own; and as a read of what the others made.

use std::future::Future;
use std::net::TcpListener;
use std::str::FromStr;

use actix_web::web::{self, Data, Json};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, error};
use anyhow::Context;
use clap::{Args, ValueEnum};
use payonce_actix::payonce_engine::{self, Engine, FingerprintSecrets, IdempotencyConfig};
use payonce_actix::{Idempotent, Tx};
use serde::Deserialize;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgConnection, PgPool};

/// The handler's own table, beside the engine's.
pub const SCHEMA: &str = "create table payments (
    reference   text primary key,
    customer_id text not null,
    amount      text not null,
    state       text not null
)";

#[derive(Debug, Args)]
pub struct LayeredArgs {
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// The most connections to the database.
    #[arg(long)]
    pool: u32,
    /// Which of the three.
    #[arg(long, value_enum)]
    handler: Handler,
}

/// Which of the three handlers is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Handler {
    Wrapped,
    Bare,
    Read,
}

impl Handler {
    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wrapped => "wrapped",
            Self::Bare => "bare",
            Self::Read => "read",
        }
    }
}

/// Serves until it is told to stop.
pub fn serve_layered(args: LayeredArgs) -> anyhow::Result<()> {
    // As payonce-actix asks for it, for all three alike.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let options = PgConnectOptions::from_str(&args.database_url).context("DATABASE_URL")?;
        let listener = super::listen()?;
        if args.handler == Handler::Wrapped {
            return serve_wrapped(options, args.pool, listener).await;
        }
        let pool = PgPoolOptions::new()
            .max_connections(args.pool)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        let data = Data::new(pool);
        let app = move || {
            let app = App::new().app_data(data.clone());
            match args.handler {
                Handler::Read => app.route("/v1/payments", web::post().to(read)),
                _ => app.route("/v1/payments", web::post().to(create)),
            }
        };
        Ok(HttpServer::new(app).listen(listener)?.run().await?)
    })
}

async fn serve_wrapped(
    options: PgConnectOptions,
    pool: u32,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let pool = payonce_engine::database::pool_options()
        .max_connections(pool)
        .connect_with(options)
        .await?;
    payonce_engine::migrate(&pool).await?;
    let secrets = FingerprintSecrets::new("the benchmark's own secret");
    let engine = Engine::start(pool, IdempotencyConfig::default(), &secrets).await?;
    let app = move || {
        App::new().service(
            web::resource("/v1/payments").post(create_wrapped).wrap(
                Idempotent::new(&engine)
                    .operation("create_payment")
                    .owner(owner),
            ),
        )
    };
    Ok(HttpServer::new(app).listen(listener)?.run().await?)
}

fn owner(request: &actix_web::dev::ServiceRequest) -> Option<String> {
    let token = request.headers().get("authorization")?.to_str().ok()?;
    token.strip_prefix("Bearer ").map(str::to_owned)
}

#[derive(Deserialize)]
struct NewPayment {
    amount: serde_json::Number,
    customer: Customer,
}

#[derive(Deserialize)]
struct Customer {
    id: String,
}

async fn create_wrapped(
    request: HttpRequest,
    mut tx: Tx,
    Json(payment): Json<NewPayment>,
) -> actix_web::Result<HttpResponse> {
    let reference = reference(&request)?;
    database(insert(&mut tx, &reference, &payment)).await?;
    Ok(created(&reference, &payment.amount.to_string()))
}

async fn create(
    pool: Data<PgPool>,
    request: HttpRequest,
    Json(payment): Json<NewPayment>,
) -> actix_web::Result<HttpResponse> {
    let reference = reference(&request)?;
    let mut transaction = database(pool.begin()).await?;
    database(insert(&mut transaction, &reference, &payment)).await?;
    database(transaction.commit()).await?;
    Ok(created(&reference, &payment.amount.to_string()))
}

async fn read(
    pool: Data<PgPool>,
    request: HttpRequest,
    Json(_): Json<NewPayment>,
) -> actix_web::Result<HttpResponse> {
    let reference = reference(&request)?;
    let select = sqlx::query_scalar("select amount from payments where reference = $1");
    let amount: String = database(select.bind(&reference).fetch_one(&**pool)).await?;
    Ok(created(&reference, &amount))
}

fn reference(request: &HttpRequest) -> actix_web::Result<String> {
    let key = request.headers().get("idempotency-key");
    let key = key.and_then(|key| key.to_str().ok()).map(str::to_owned);
    key.ok_or_else(|| error::ErrorBadRequest("no Idempotency-Key"))
}

async fn insert(
    connection: &mut PgConnection,
    reference: &str,
    payment: &NewPayment,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into payments (reference, customer_id, amount, state) values ($1, $2, $3, 'SUCCESS')",
    )
    .bind(reference)
    .bind(&payment.customer.id)
    .bind(payment.amount.to_string())
    .execute(connection)
    .await
    .map(drop)
}

/// One answer for all three.
fn created(reference: &str, amount: &str) -> HttpResponse {
    let body = json!({"id": reference, "amount": amount, "state": "SUCCESS"});
    HttpResponse::Created().json(body)
}

async fn database<T>(query: impl Future<Output = sqlx::Result<T>>) -> actix_web::Result<T> {
    query.await.map_err(error::ErrorInternalServerError)
}
