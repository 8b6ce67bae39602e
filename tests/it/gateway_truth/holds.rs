//! Captures and cancels: each attempt is a call of its own, and a hold may lapse at the gateway.

use payonce::gateway::Cancel;
use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::support::gateway::{ChargeStatus, Endpoint};

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn after_a_refused_capture_a_smaller_one_or_a_cancel_works_at_once(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    for (number, then) in ["capture", "cancel"].into_iter().enumerate() {
        let id = held(&acme, "10", &format!("p{number}")).await;
        // The service assumes a larger hold than the gateway has, so the gateway refuses, and stores that under its key.
        execute(&service.pool, "update payments set amount_minor = 2000").await;
        let key = format!("c{number}");
        let all = on(&acme, &id, "capture", &key, json!({})).send().await;
        all.assert_problem(422, "gateway-refused", "fix-request");
        assert_eq!(all.text("charged"), "no");
        assert_eq!(shown(&acme, &id).await.text("state"), "AUTHORIZED");
        execute(&service.pool, "update payments set amount_minor = 1000").await;
        let (what, body, state) = match then {
            "capture" => ("capture", json!({"amount": "8"}), "SUCCESS"),
            _ => ("cancel", json!({}), "CANCELED"),
        };
        let done = on(&acme, &id, what, &key, body).send().await;
        assert_eq!(
            (done.status.as_u16(), done.text("state")),
            (200, state.into())
        );
        execute(&service.pool, "delete from payments").await;
    }
    let keys = gateway.requests(Endpoint::Capture).into_iter();
    let keys: Vec<_> = keys.map(|request| request.idempotency_key).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys[0] != keys[1] && keys[1] != keys[2], "{keys:?}");
    let captured: Vec<_> = gateway.ledger().captures.iter().map(|c| c.amount).collect();
    assert_eq!(captured, [800]);
}

/// Releases a payment's hold at the gateway.
async fn lapse(gateway: &TestGateway, id: &str) {
    let cancel = Cancel {
        key: format!("theirs-{id}"),
        payment_id: id.to_owned(),
        account: None,
        transaction_id: gateway.ledger().only_charge(id).intent_id.clone(),
    };
    let stripe = adapter(gateway, AMPLE);
    stripe.cancel(&cancel).await.expect("it is let go");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_hold_that_lapsed_at_the_gateway_is_seen_when_it_is_touched(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let id = held(&acme, "10", "p").await;
    lapse(&gateway, &id).await;
    let capture = on(&acme, &id, "capture", "c", json!({}));
    let refused = capture.send().await;
    refused.assert_problem(409, "payment-state-conflict", "no");
    assert_eq!(refused.text("state"), "CANCELED");
    assert_eq!(refused.text("charged"), "no");
    assert_eq!(capture.send().await.bytes, refused.bytes);
    let payment = shown(&acme, &id).await;
    assert_eq!(payment.text("state"), "CANCELED");
    assert!(!payment.text("cancellationReason").is_empty());
    assert_eq!(payment.text("amountCaptured"), "0.00");
    assert_eq!(service.count("unsettled_keys").await, 0);
    // The state that a cancel asks for is reached.
    let id = held(&acme, "10", "p2").await;
    lapse(&gateway, &id).await;
    let canceled = on(&acme, &id, "cancel", "x", json!({})).send().await;
    assert_eq!(
        (canceled.status.as_u16(), canceled.text("state")),
        (200, "CANCELED".into())
    );
    let ledger = gateway.ledger();
    assert_eq!(ledger.only_charge(&id).status, ChargeStatus::Canceled);
    assert_eq!(ledger.captures.len(), 0);
}
