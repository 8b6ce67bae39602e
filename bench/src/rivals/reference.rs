//! The reference: how a user of actix-web and sqlx would make a payment idempotent without payonce. One transaction per request: insert
//! the key on conflict do nothing, insert the payment, save the answer.
//!
//! It is a fair comparison. Statements are prepared and cached, several sizes of the pool are tried and the best one counts,
//! connections are not tested before they are used, the request is validated and its SHA-256 compared, and a repeated request gets
//! the stored answer. It does less than payonce: no authentication, no call to a gateway, one phase instead of two, no metrics.

use std::str::FromStr;

use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use actix_web::{App, Handler, HttpRequest, HttpResponse, HttpServer, Responder, web};
use anyhow::Context;
use clap::Args;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

pub(super) const MERCHANT: &str = "bench";
pub(super) const OPERATION: &str = "create_payment";

#[derive(Debug, Args)]
pub struct ReferenceArgs {
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Maximum number of connections to the database.
    #[arg(long)]
    pool: u32,
}

/// Serves until it is stopped.
pub fn serve_reference(args: ReferenceArgs) -> anyhow::Result<()> {
    serve(args, create)
}

/// Serves payments by a handler that has the pool.
pub(super) fn serve<F, R>(args: ReferenceArgs, create: F) -> anyhow::Result<()>
where
    F: Handler<(Data<PgPool>, HttpRequest, Bytes), Output = R> + Copy + Send,
    R: Responder + 'static,
{
    actix_web::rt::System::new().block_on(async move {
        let options = PgConnectOptions::from_str(&args.database_url).context("DATABASE_URL")?;
        let pool = PgPoolOptions::new()
            .max_connections(args.pool)
            .acquire_timeout(std::time::Duration::from_secs(30))
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        let listener = super::listen()?;
        let data = Data::new(pool);
        let app = move || {
            App::new()
                .app_data(data.clone())
                .route("/v1/payments", web::post().to(create))
        };
        Ok(HttpServer::new(app).listen(listener)?.run().await?)
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewPayment {
    amount: serde_json::Number,
    currency: String,
    payment_method: PaymentMethod,
    customer: Customer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PaymentMethod {
    r#type: String,
    details: Card,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Card {
    card_number: String,
    cvv: String,
    expiry_month: String,
    expiry_year: String,
    card_holder_name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Customer {
    id: Option<String>,
    email: Option<String>,
    name: Option<String>,
}

/// A valid request.
pub(super) struct Valid {
    amount: Decimal,
    amount_minor: i64,
    last4: String,
    expiry_month: i16,
    expiry_year: i16,
}

impl NewPayment {
    fn validate(&self) -> Option<Valid> {
        let card = &self.payment_method.details;
        let amount = Decimal::from_str(&self.amount.to_string()).ok()?;
        let valid = Valid {
            amount,
            amount_minor: (amount * Decimal::ONE_HUNDRED).to_i64()?,
            last4: card
                .card_number
                .get(card.card_number.len().checked_sub(4)?..)?
                .to_owned(),
            expiry_month: card.expiry_month.parse().ok()?,
            expiry_year: card.expiry_year.parse().ok()?,
        };
        let is_good = valid.amount_minor > 0
            && amount.scale() <= 2
            && self.currency == "USD"
            && self.payment_method.r#type == "CARD"
            && (3..=4).contains(&card.cvv.len())
            && (1..=12).contains(&valid.expiry_month)
            && passes_luhn(&card.card_number);
        is_good.then_some(valid)
    }
}

fn passes_luhn(number: &str) -> bool {
    let digits = number
        .bytes()
        .rev()
        .map(|byte| u32::from(byte.wrapping_sub(b'0')));
    let sum: u32 = digits
        .enumerate()
        .map(|(place, digit)| match place % 2 {
            0 => digit,
            _ if digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    number.bytes().all(|byte| byte.is_ascii_digit()) && sum.is_multiple_of(10)
}

/// The shape of payonce's answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payment<'a> {
    id: &'a str,
    idempotency_key: &'a str,
    state: &'a str,
    amount: String,
    currency: &'a str,
    capture_method: &'a str,
    amount_captured: String,
    amount_refunded: &'a str,
    payment_method: serde_json::Value,
    customer: &'a Customer,
    gateway_type: &'a str,
    gateway_transaction_id: &'a str,
    failure: Option<&'a str>,
    description: Option<&'a str>,
    metadata: serde_json::Value,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// The answer that is stored under a key and sent.
pub(super) struct Stored {
    pub(super) status: i16,
    pub(super) location: String,
    pub(super) body: Vec<u8>,
}

/// A request that may be carried out.
pub(super) struct Accepted<'a> {
    pub(super) key: &'a str,
    pub(super) fingerprint: [u8; 32],
    pub(super) payment: NewPayment,
    pub(super) valid: Valid,
}

/// Reads and validates a request; otherwise the status of its refusal.
pub(super) fn accept<'a>(
    request: &'a HttpRequest,
    body: &Bytes,
) -> Result<Accepted<'a>, StatusCode> {
    let key = request.headers().get("idempotency-key");
    let key = key
        .and_then(|key| key.to_str().ok())
        .filter(|key| key.len() <= 255)
        .ok_or(StatusCode::BAD_REQUEST)?;
    let payment: NewPayment = serde_json::from_slice(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let valid = payment.validate().ok_or(StatusCode::UNPROCESSABLE_ENTITY)?;
    Ok(Accepted {
        key,
        fingerprint: Sha256::digest(body).into(),
        payment,
        valid,
    })
}

pub(super) fn internal_error(error: &sqlx::Error) -> HttpResponse {
    eprintln!("a per-request handler: {error}");
    HttpResponse::InternalServerError().finish()
}

async fn create(pool: Data<PgPool>, request: HttpRequest, body: Bytes) -> HttpResponse {
    let accepted = match accept(&request, &body) {
        Ok(accepted) => accepted,
        Err(refusal) => return HttpResponse::build(refusal).finish(),
    };
    let (key, fingerprint) = (accepted.key, &accepted.fingerprint[..]);
    match pay(&pool, key, fingerprint, &accepted.payment, &accepted.valid).await {
        Ok(response) => response,
        Err(error) => internal_error(&error),
    }
}

async fn pay(
    pool: &PgPool,
    key: &str,
    fingerprint: &[u8],
    payment: &NewPayment,
    valid: &Valid,
) -> sqlx::Result<HttpResponse> {
    let mut transaction = pool.begin().await?;
    if !insert_key(&mut transaction, key, fingerprint).await? {
        return replay(&mut transaction, key, fingerprint).await;
    }
    let id = format!("pay_{}", Uuid::now_v7());
    let gateway_transaction_id = format!("sim_{id}");
    insert_payment(
        &mut transaction,
        &id,
        key,
        Some(&gateway_transaction_id),
        payment,
        valid,
    )
    .await?;
    let stored = Stored {
        status: 201,
        location: format!("/v1/payments/{id}"),
        body: answer(&id, key, &gateway_transaction_id, payment, valid)?,
    };
    save_answer(&mut transaction, key, &stored).await?;
    transaction.commit().await?;
    Ok(respond(key, stored, false))
}

pub(super) fn answer(
    id: &str,
    key: &str,
    gateway_transaction_id: &str,
    payment: &NewPayment,
    valid: &Valid,
) -> sqlx::Result<Vec<u8>> {
    let card = serde_json::json!({
        "type": "CARD",
        "details": {
            "brand": "visa",
            "last4": valid.last4,
            "expiryMonth": valid.expiry_month,
            "expiryYear": valid.expiry_year,
            "cardHolderName": payment.payment_method.details.card_holder_name,
        },
    });
    let now = Utc::now();
    serde_json::to_vec(&Payment {
        id,
        idempotency_key: key,
        state: "SUCCESS",
        amount: format!("{:.2}", valid.amount),
        currency: &payment.currency,
        capture_method: "AUTOMATIC",
        amount_captured: format!("{:.2}", valid.amount),
        amount_refunded: "0.00",
        payment_method: card,
        customer: &payment.customer,
        gateway_type: "SIMULATED",
        gateway_transaction_id,
        failure: None,
        description: None,
        metadata: serde_json::json!({}),
        created_at: now,
        updated_at: now,
    })
    .map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Returns false if the key exists.
pub(super) async fn insert_key(
    connection: &mut PgConnection,
    key: &str,
    fingerprint: &[u8],
) -> sqlx::Result<bool> {
    let inserted = sqlx::query(
        "insert into idempotency_keys (merchant_id, operation, key, fingerprint, state, created_at, expires_at)
        values ($1, $2, $3, $4, 'PROCESSING', now(), now() + interval '24 hours')
        on conflict do nothing",
    )
    .bind(MERCHANT)
    .bind(OPERATION)
    .bind(key)
    .bind(fingerprint)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Final if the gateway has answered, with its transaction.
pub(super) async fn insert_payment(
    connection: &mut PgConnection,
    id: &str,
    key: &str,
    gateway_transaction_id: Option<&str>,
    payment: &NewPayment,
    valid: &Valid,
) -> sqlx::Result<()> {
    let state = gateway_transaction_id.map_or("PROCESSING", |_| "SUCCESS");
    sqlx::query(
        "insert into payments (
            merchant_id, payment_id, idempotency_key, state, currency, amount_minor, card_brand, card_last4,
            card_expiry_month, card_expiry_year, card_holder_name, customer_id, customer_email, customer_name,
            gateway_transaction_id, created_at, updated_at
        )
        values ($1, $2, $3, $14, $4, $5, 'visa', $6, $7, $8, $9, $10, $11, $12, $13, now(), now())",
    )
    .bind(MERCHANT)
    .bind(id)
    .bind(key)
    .bind(&payment.currency)
    .bind(valid.amount_minor)
    .bind(&valid.last4)
    .bind(valid.expiry_month)
    .bind(valid.expiry_year)
    .bind(&payment.payment_method.details.card_holder_name)
    .bind(&payment.customer.id)
    .bind(&payment.customer.email)
    .bind(&payment.customer.name)
    .bind(gateway_transaction_id)
    .bind(state)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn save_answer(
    connection: &mut PgConnection,
    key: &str,
    stored: &Stored,
) -> sqlx::Result<()> {
    sqlx::query(
        "update idempotency_keys
        set state = 'COMPLETED', response_status = $4, response_headers = $5, response_body = $6
        where merchant_id = $1 and operation = $2 and key = $3",
    )
    .bind(MERCHANT)
    .bind(OPERATION)
    .bind(key)
    .bind(stored.status)
    .bind(serde_json::json!({ "location": stored.location }))
    .bind(&stored.body)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn replay(
    connection: &mut PgConnection,
    key: &str,
    fingerprint: &[u8],
) -> sqlx::Result<HttpResponse> {
    let (first, status, headers, body): (
        Vec<u8>,
        Option<i16>,
        Option<serde_json::Value>,
        Option<Vec<u8>>,
    ) = sqlx::query_as(
        "select fingerprint, response_status, response_headers, response_body from idempotency_keys
            where merchant_id = $1 and operation = $2 and key = $3",
    )
    .bind(MERCHANT)
    .bind(OPERATION)
    .bind(key)
    .fetch_one(connection)
    .await?;
    if first != fingerprint {
        return Ok(HttpResponse::UnprocessableEntity().finish());
    }
    let (Some(status), Some(headers), Some(body)) = (status, headers, body) else {
        return Ok(HttpResponse::Conflict().finish());
    };
    let location = headers["location"].as_str().unwrap_or_default().to_owned();
    let stored = Stored {
        status,
        location,
        body,
    };
    Ok(respond(key, stored, true))
}

pub(super) fn respond(key: &str, stored: Stored, replayed: bool) -> HttpResponse {
    let status = u16::try_from(stored.status).ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    HttpResponse::build(status.unwrap_or(StatusCode::CREATED))
        .insert_header(("content-type", "application/json"))
        .insert_header(("location", stored.location))
        .insert_header(("idempotency-key", key))
        .insert_header((
            "idempotent-replayed",
            if replayed { "true" } else { "false" },
        ))
        .body(stored.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::BODY;

    #[test]
    fn the_benchmarks_own_request_is_valid_and_a_spoilt_one_is_not() {
        let valid = |body: &str| {
            serde_json::from_str::<NewPayment>(body)
                .ok()
                .and_then(|payment| payment.validate())
        };
        let payment = valid(BODY).expect("valid");
        assert_eq!((payment.amount_minor, &*payment.last4), (9999, "4242"));
        for (good, bad) in [
            ("99.99", "-99.99"),
            ("99.99", "99.999"),
            ("4242424242424242", "4242424242424241"),
            ("\"12\"", "\"13\""),
            ("\"CARD\"", "\"CASH\""),
            ("\"currency\"", "\"curency\""),
        ] {
            assert!(valid(&BODY.replacen(good, bad, 1)).is_none(), "{bad}");
        }
    }
}
