//! `charged` in each problem whose key was looked up.

use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::support::gateway::{Endpoint, Fault};

#[track_caller]
fn assert_charged(answer: &Answer, code: &str, charged: &str) {
    assert_eq!(
        (answer.text("code"), answer.text("charged")),
        (code.to_owned(), charged.to_owned()),
        "{answer:?}"
    );
}

/// The keys' records have expired.
async fn expire(service: &Service) {
    execute(&service.pool, "update idempotency_keys set created_at = created_at - interval '2 days',
            completed_at = completed_at - interval '2 days', expires_at = expires_at - interval '2 days'
            where state <> 'PROCESSING'",
    )
    .await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_key_used_again_or_too_late_says_what_it_came_to(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, HASTY).await;
    let other_node = node(&db, &gateway, HASTY).await;
    let acme = service.merchant("acme").await;
    let declined = by_token("10", "pm_card_chargeDeclined");
    let declined = |key: &str| acme.post("/v1/payments", declined.clone()).key(key);
    paid(&acme, "10", "paid").await;
    held(&acme, "10", "held").await;
    assert_charged(&declined("declined").send().await, "payment-declined", "no");
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let under_way = visa(&acme, "10", "under-way");
    assert_eq!(under_way.send().await.status, 202);
    gateway.calm();
    let expected = [
        ("paid", "yes"),
        ("held", "yes"),
        ("declined", "no"),
        ("under-way", "unknown"),
    ];
    for (key, charged) in expected {
        for url in [&service.url, &other_node.url] {
            let reused = visa(&acme, "11", key).at(url).send().await;
            assert_charged(&reused, "idempotency-key-reused", charged);
        }
    }
    let in_use = under_way.header("prefer", "wait=0").send().await;
    assert_charged(&in_use, "idempotency-key-in-use", "unknown");
    expire(&service).await;
    // A node that remembers no answer.
    let fresh = node(&db, &gateway, AMPLE).await;
    let late = visa(&acme, "10", "paid").at(&fresh.url).send().await;
    assert_charged(&late, "idempotency-key-expired", "yes");
    let late = declined("declined").at(&fresh.url).send().await;
    assert_charged(&late, "idempotency-key-expired", "no");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_an_operation_on_a_payment_is_refused_for_took_nothing(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let (charge, hold) = (paid(&acme, "10", "p").await, held(&acme, "10", "h").await);
    let refused = [
        (&charge, "capture", json!({}), "payment-state-conflict"),
        (&charge, "cancel", json!({}), "payment-state-conflict"),
        (&hold, "refunds", json!({}), "payment-state-conflict"),
        (
            &hold,
            "capture",
            json!({"amount": "11"}),
            "amount-too-large",
        ),
        (
            &charge,
            "refunds",
            json!({"amount": "11"}),
            "amount-too-large",
        ),
        (
            &charge,
            "refunds",
            json!({"amount": "1.001"}),
            "validation-failed",
        ),
        (&"pay_none".to_owned(), "refunds", json!({}), "not-found"),
    ];
    for (number, (id, what, body, code)) in refused.into_iter().enumerate() {
        let answer = on(&acme, id, what, &format!("k{number}"), body)
            .send()
            .await;
        assert_charged(&answer, code, "no");
    }
    gateway.refuse();
    // Another node, whose client has no connection to the gateway: a request that was sent on one would be lost, not refused.
    let other = node(&db, &gateway, AMPLE).await;
    let there = acme.at(&other);
    let away = on(&there, &charge, "refunds", "r", json!({})).send().await;
    assert_charged(&away, "gateway-unavailable", "no");
    assert_charged(
        &visa(&there, "10", "away").send().await,
        "gateway-unavailable",
        "no",
    );
    // Refused before its key was looked up.
    let unread = visa(&acme, "0", "p").send().await;
    assert_charged(&unread, "validation-failed", "");
    assert!(unread.json().get("charged").is_none());
}
