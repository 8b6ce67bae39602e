//! The service with a gateway that fails. The test gateway's own books show what was charged.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use payonce::gateway::{Capture, Circuit, Gateway, StripeGateway};
use payonce::money::{Amount, Currency};
use payonce::recovery::Recovery;
use secrecy::SecretString;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::gateway::{Endpoint, Fault, SECRET_KEY, TestGateway};
use crate::support::rows::end_leases;
use crate::support::service::{Merchant, Service, Setup, payment};

async fn on_stripe(db: &PgConnectOptions, gateway: &TestGateway, time: Duration) -> Service {
    on_stripe_with(db, Setup::default(), gateway, time).await
}

async fn on_stripe_with(
    db: &PgConnectOptions,
    setup: Setup,
    gateway: &TestGateway,
    time: Duration,
) -> Service {
    let key = SecretString::from(SECRET_KEY);
    let stripe = StripeGateway::new(&gateway.url(), key, time.mul_f64(0.9)).expect("a client");
    let stripe: Arc<dyn Gateway> = Arc::new(Circuit::new(Arc::new(stripe)));
    Service::start_on(db, setup, stripe, time).await
}

/// Ends the leases, and makes one recovery pass.
async fn recover(service: &Service) {
    end_leases(&service.pool).await;
    let mut recovery = Recovery::new(service.payments.clone());
    recovery.run_once().await.expect("a pass");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_gateway_that_cannot_be_reached_leaves_nothing(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let service = on_stripe(&db, &gateway, Duration::from_secs(3)).await;
    let acme = service.merchant("acme").await;
    gateway.refuse();
    let refused = acme.pay("10").key("k").send().await;
    refused.assert_problem(503, "gateway-unavailable", "same-key");
    service.assert_no_rows("a refusal").await;
    // A token needs no tokenising: here the claim had been made, and was given back.
    let token = json!({"amount": "10", "currency": "USD", "paymentMethod": {"type": "CARD", "token": "pm_card_visa"}});
    let refused = acme.post("/v1/payments", token).key("t").send().await;
    refused.assert_problem(503, "gateway-unavailable", "same-key");
    service.assert_no_rows("a refusal").await;
    gateway.accept();
    assert_eq!(acme.pay("10").key("k").send().await.status, 201);
    assert_eq!(gateway.ledger().charges.len(), 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_unknown_answer_is_202_and_recovery_finds_the_one_charge(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = on_stripe(&db, &gateway, Duration::from_millis(600)).await;
    let acme = service.merchant("acme").await;
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let unknown = acme.pay("10").key("k").send().await;
    assert_eq!(unknown.status, 202);
    assert_eq!(unknown.text("state"), "PROCESSING");
    assert!(unknown.header("retry-after").is_some());
    gateway.calm();
    recover(&service).await;
    let known = acme.pay("10").key("k").send().await;
    assert_eq!((known.status.as_u16(), known.replayed()), (201, true));
    assert_eq!(known.json()["id"], unknown.json()["id"]);
    assert_eq!(service.count("unsettled_keys").await, 0);
    gateway.ledger().only_charge(&known.text("id"));
    gateway.ledger().assert_nothing_twice();
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn every_fault_of_the_gateway_ends_in_one_charge(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let service = on_stripe(&db, &gateway, Duration::from_secs(3)).await;
    let acme = service.merchant("acme").await;
    for (i, fault) in Fault::CHAOS
        .iter()
        .copied()
        .chain([Fault::StoredError])
        .enumerate()
    {
        let operations = [
            ("charge", Endpoint::Charge),
            ("capture", Endpoint::Capture),
            ("refund", Endpoint::Refund),
            ("cancel", Endpoint::Cancel),
        ];
        for (operation, endpoint) in operations {
            let name = format!("{operation}-{i}");
            let mut body = crate::support::service::payment("10");
            body["captureMethod"] = json!(if operation == "capture" || operation == "cancel" {
                "MANUAL"
            } else {
                "AUTOMATIC"
            });
            let pay = acme.post("/v1/payments", body).key(&name);
            if operation != "charge" {
                pay.send().await;
            }
            gateway.script([(endpoint, fault)]);
            let mut answer = pay.send().await;
            let id = answer.text("id");
            let path = format!(
                "/v1/payments/{id}/{}",
                if operation == "refund" {
                    "refunds"
                } else {
                    operation
                }
            );
            let request = if operation == "charge" {
                pay
            } else {
                acme.post(&path, json!({})).key(&name)
            };
            for _ in 0..10 {
                answer = request.send().await;
                if matches!(answer.status.as_u16(), 200 | 201) {
                    break;
                }
                recover(&service).await;
            }
            assert!(
                matches!(answer.status.as_u16(), 200 | 201),
                "{fault:?} {operation}: {answer:?}"
            );
            assert_eq!(request.send().await.bytes, answer.bytes);
            gateway.calm();
            gateway.ledger().only_charge(&id);
        }
    }
    gateway.ledger().assert_nothing_twice();
    assert_eq!(service.count("unsettled_keys").await, 0);
}

/// Two hundred equal requests at once get equal answers.
async fn storm(acme: &Merchant, key: &str) {
    let sent = (0..200).map(|_| {
        let request = acme.pay("10").key(key);
        async move { request.send().await }
    });
    let answers = futures_util::future::join_all(sent).await;
    let first = &answers[0];
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 && answer.bytes == first.bytes)
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn two_hundred_duplicates_are_one_token_and_one_charge(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    gateway.latency(Duration::from_millis(200));
    let setup = Setup {
        // The recovery worker's connection is not theirs.
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    };
    let service = on_stripe_with(&db, setup, &gateway, Duration::from_secs(5)).await;
    let acme = service.merchant("acme").await;
    // The API key is known, and the connections are there.
    assert_eq!(acme.pay("10").key("before").send().await.status, 201);
    let at_once = Arc::new(AtomicI64::new(0));
    let watching = tokio::spawn(service.watch_sessions(Arc::clone(&at_once)));
    for n in 0..3 {
        let began: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("select clock_timestamp()")
            .fetch_one(&service.pool)
            .await
            .expect("the database's time");
        storm(&acme, &format!("storm-{n}")).await;
        assert_eq!(gateway.calls(Endpoint::Charge).received, n + 2);
        assert_eq!(gateway.calls(Endpoint::Tokenize).received, n + 2);
        // One asks whether the key is known, so as not to make a second token; one claims, one settles. They take turns. On a slow
        // machine the API key is looked up again meanwhile, and the lease is renewed.
        let used = service.sessions_used_since(began).await;
        assert!(used <= 5, "{used} sessions");
        let at_once = at_once.load(Ordering::Relaxed);
        assert!(at_once <= 2, "{at_once} sessions at once");
    }
    watching.abort();
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn past_twenty_hours_the_gateway_is_asked_and_never_called(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = on_stripe(&db, &gateway, Duration::from_millis(600)).await;
    let acme = service.merchant("acme").await;
    // One was charged and its answer lost; the other never reached the gateway.
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let charged = acme.pay("10").key("charged").send().await;
    gateway.script([(Endpoint::Charge, Fault::DropBefore); 30]);
    let never = acme.pay("10").key("never").send().await;
    assert_eq!((charged.status.as_u16(), never.status.as_u16()), (202, 202));
    gateway.calm();
    gateway.forget_keys();
    sqlx::query("update idempotency_keys set created_at = created_at - interval '21 hours' where state = 'PROCESSING'")
        .execute(&service.pool)
        .await
        .expect("the rows' time is moved");
    let calls = gateway.calls(Endpoint::Charge).received;
    recover(&service).await;
    assert_eq!(
        gateway.calls(Endpoint::Charge).received,
        calls,
        "no call to charge"
    );
    assert_eq!(acme.pay("10").key("charged").send().await.status, 201);
    let answer = acme.pay("10").key("never").send().await;
    answer.assert_problem(402, "payment-declined", "new-key");
    assert_eq!(answer.text("declineCode"), "never_reached_gateway");
    assert_eq!(gateway.ledger().charges.len(), 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_gateway_that_is_down_is_not_hammered(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let service = on_stripe(&db, &gateway, Duration::from_secs(3)).await;
    let acme = service.merchant("acme").await;
    gateway.refuse();
    for _ in 0..5 {
        acme.pay("10")
            .key("k")
            .send()
            .await
            .assert_problem(503, "gateway-unavailable", "same-key");
    }
    let ready = acme.get("/readyz").await;
    assert_eq!(
        (ready.status.as_u16(), ready.text("gateway")),
        (200, "circuit-open".to_owned())
    );
    gateway.accept();
    // The first call that is let through closes the circuit.
    while acme.pay("10").key("k").send().await.status != 201 {}
    assert_eq!(acme.get("/readyz").await.text("gateway"), "ok");
    assert_eq!(gateway.ledger().charges.len(), 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_capture_by_somebody_else_is_told_to_the_client(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let service = on_stripe(&db, &gateway, Duration::from_secs(3)).await;
    let acme = service.merchant("acme").await;
    let mut body = payment("50");
    body["captureMethod"] = json!("MANUAL");
    let held = acme.post("/v1/payments", body).key("held").send().await;
    let id = held.text("id");
    let usd = Currency::from_code("USD").expect("USD");
    let transaction_id: String = sqlx::query_scalar("select gateway_transaction_id from payments")
        .fetch_one(&service.pool)
        .await
        .expect("an id");
    let theirs = Capture {
        key: "theirs".to_owned(),
        payment_id: id.clone(),
        account: None,
        transaction_id,
        amount: Amount::from_minor(2_000, usd),
    };
    let key = SecretString::from(SECRET_KEY);
    let somebody = StripeGateway::new(&gateway.url(), key, Duration::from_secs(3));
    let somebody = somebody.expect("a client");
    somebody.capture(&theirs).await.expect("a capture");
    let capture = acme.post(&format!("/v1/payments/{id}/capture"), json!({}));
    for key in ["ours", "ours", "another"] {
        let told = capture.clone().key(key).send().await;
        told.assert_problem(402, "payment-declined", "new-key");
        assert_eq!(
            told.text("detail"),
            "The gateway has captured 20.00 USD already"
        );
    }
}
