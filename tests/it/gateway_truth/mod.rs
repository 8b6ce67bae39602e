//! The service with a gateway that is strict about Stripe's published contract: its answers, its rows, and the gateway's own books.

mod accounts;
mod charged;
mod day_old;
mod holds;
mod misconfigured;
mod refunds;
mod refused;
mod robot;

use std::sync::Arc;
use std::time::Duration;

use payonce::gateway::{Circuit, Gateway, StripeGateway};
use payonce::recovery::{Recovery, RecoveryReport};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;

use crate::support::gateway::{SECRET_KEY, TestGateway};
use crate::support::rows::{end_leases, execute};
use crate::support::service::{Answer, Merchant, Request, Service, Setup};

/// Long enough for every fault that a retry overcomes.
const AMPLE: Duration = Duration::from_secs(5);

/// Short, for tests that hold the gateway's answer back.
const HASTY: Duration = Duration::from_millis(600);

/// An adapter for the test's gateway.
fn adapter(gateway: &TestGateway, request_time: Duration) -> StripeGateway {
    let key = SecretString::from(SECRET_KEY);
    StripeGateway::new(&gateway.url(), key, request_time).expect("an adapter")
}

/// Only the test makes recovery passes.
fn no_recovery() -> Setup {
    Setup {
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    }
}

async fn node_with(
    db: &PgConnectOptions,
    setup: Setup,
    gateway: &TestGateway,
    time: Duration,
) -> Service {
    let stripe: Arc<dyn Gateway> =
        Arc::new(Circuit::new(Arc::new(adapter(gateway, time.mul_f64(0.9)))));
    Service::start_on(db, setup, stripe, time).await
}

async fn node(db: &PgConnectOptions, gateway: &TestGateway, time: Duration) -> Service {
    node_with(db, no_recovery(), gateway, time).await
}

/// A payment by a token, which needs no call before its claim.
fn by_token(amount: &str, token: &str) -> Value {
    json!({"amount": amount, "currency": "USD", "paymentMethod": {"type": "CARD", "token": token}})
}

fn visa(merchant: &Merchant, amount: &str, key: &str) -> Request {
    let body = by_token(amount, "pm_card_visa");
    merchant.post("/v1/payments", body).key(key)
}

/// The id of a payment that is paid.
async fn paid(merchant: &Merchant, amount: &str, key: &str) -> String {
    let answer = visa(merchant, amount, key).send().await;
    assert_eq!(answer.text("state"), "SUCCESS", "{answer:?}");
    answer.text("id")
}

/// The id of a payment whose money is held.
async fn held(merchant: &Merchant, amount: &str, key: &str) -> String {
    let mut body = by_token(amount, "pm_card_visa");
    body["captureMethod"] = json!("MANUAL");
    let answer = merchant.post("/v1/payments", body).key(key).send().await;
    assert_eq!(answer.text("state"), "AUTHORIZED", "{answer:?}");
    answer.text("id")
}

fn on(merchant: &Merchant, id: &str, what: &str, key: &str, body: Value) -> Request {
    let path = format!("/v1/payments/{id}/{what}");
    merchant.post(&path, body).key(key)
}

async fn shown(merchant: &Merchant, id: &str) -> Answer {
    merchant.get(&format!("/v1/payments/{id}")).await
}

/// The leases' time is moved, and one pass of the recovery made.
async fn recover(service: &Service) -> RecoveryReport {
    end_leases(&service.pool).await;
    let mut recovery = Recovery::new(service.payments.clone());
    recovery.run_once().await.expect("a pass")
}

/// The attempt of each claim that is not settled.
async fn attempts(service: &Service) -> Vec<i32> {
    sqlx::query_scalar("select attempt::int from idempotency_keys where state = 'PROCESSING'")
        .fetch_all(&service.pool)
        .await
        .expect("attempts")
}
