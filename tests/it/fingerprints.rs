//! Which requests are the same: of captures, cancels and refunds, of tokens, and while the first is still at work.

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::scripted::Turn;
use crate::support::service::{Answer, Merchant, Service, payment};

#[track_caller]
fn assert_changed(answer: &Answer, paths: &[&str]) {
    answer.assert_problem(422, "idempotency-key-reused", "no");
    assert_eq!(answer.json()["changed"], json!(paths));
}

async fn on(merchant: &Merchant, id: &str, what: &str, key: &str, body: &str) -> Answer {
    let path = format!("/v1/payments/{id}/{what}");
    merchant
        .post(&path, json!({}))
        .key(key)
        .body(body)
        .send()
        .await
}

async fn held(merchant: &Merchant, key: &str) -> String {
    let mut body = payment("10.00");
    body["captureMethod"] = json!("MANUAL");
    merchant
        .post("/v1/payments", body)
        .key(key)
        .send()
        .await
        .text("id")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_capture_is_the_same_in_any_spelling_and_for_its_payment_only(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let (one, two) = (held(&acme, "1").await, held(&acme, "2").await);
    let first = on(&acme, &one, "capture", "c", r#"{"amount": "4"}"#).await;
    assert_eq!(first.status, 200);
    for same in [
        "{\"amount\":4}",
        " {\"amount\" : \"4.00\"} ",
        "{\"amount\": 0.4e1}",
    ] {
        assert_eq!(
            on(&acme, &one, "capture", "c", same).await.bytes,
            first.bytes,
            "{same}"
        );
    }
    assert_changed(
        &on(&acme, &one, "capture", "c", r#"{"amount": "4.01"}"#).await,
        &["amount"],
    );
    assert_changed(&on(&acme, &one, "capture", "c", "{}").await, &["amount"]);
    assert_changed(
        &on(&acme, &two, "capture", "c", r#"{"amount": 4}"#).await,
        &["paymentId"],
    );
    assert_changed(
        &on(&acme, &two, "capture", "c", "").await,
        &["amount", "paymentId"],
    );
    // A payment that is not there is not looked for: the key was used.
    assert_changed(
        &on(&acme, "pay_none", "capture", "c", r#"{"amount": 4}"#).await,
        &["paymentId"],
    );
    let shown = acme.get(&format!("/v1/payments/{two}")).await;
    assert_eq!(shown.text("state"), "AUTHORIZED");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refund_and_a_cancel_are_compared_too(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let paid = acme.pay("10").key("p").send().await.text("id");
    let first = on(
        &acme,
        &paid,
        "refunds",
        "r",
        r#"{"amount": 1, "reason": "broken"}"#,
    )
    .await;
    assert_eq!(first.status, 201);
    let same = on(
        &acme,
        &paid,
        "refunds",
        "r",
        r#"{"reason":"broken","amount":"1.0"}"#,
    )
    .await;
    assert_eq!(same.bytes, first.bytes);
    for (body, paths) in [
        (r#"{"amount": 2, "reason": "broken"}"#, &["amount"][..]),
        (r#"{"amount": 1, "reason": "Broken"}"#, &["reason"]),
        (r#"{"amount": 1}"#, &["reason"]),
        ("{}", &["amount", "reason"]),
    ] {
        assert_changed(&on(&acme, &paid, "refunds", "r", body).await, paths);
    }
    let shown = acme.get(&format!("/v1/payments/{paid}")).await;
    assert_eq!(shown.text("amountRefunded"), "1.00");

    let (one, two) = (held(&acme, "1").await, held(&acme, "2").await);
    let canceled = on(&acme, &one, "cancel", "c", "").await;
    assert_eq!(
        on(&acme, &one, "cancel", "c", "{}").await.bytes,
        canceled.bytes
    );
    assert_changed(&on(&acme, &two, "cancel", "c", "{}").await, &["paymentId"]);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_card_and_a_token_are_two_requests(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let by_token = |token: &str| {
        let mut body = payment("10");
        body["paymentMethod"] = json!({"type": "CARD", "token": token});
        acme.post("/v1/payments", body).key("k")
    };
    let first = by_token("pm_card_visa").send().await;
    assert_eq!(first.status, 201);
    assert!(by_token("pm_card_visa").send().await.replayed());
    assert_changed(
        &by_token("pm_card_mastercard").send().await,
        &["paymentMethod.token"],
    );
    let by_card = acme.pay("10").key("k").send().await;
    by_card.assert_problem(422, "idempotency-key-reused", "no");
    let changed = by_card.json()["changed"].clone();
    let changed = changed.as_array().expect("a list");
    assert!(changed.contains(&json!("paymentMethod.token")));
    assert!(changed.contains(&json!("paymentMethod.details.cardNumber")));
    assert!(
        !changed.contains(&json!("paymentMethod.details.cvv")),
        "the CVV takes no part"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_differs_is_named_while_the_first_is_at_work_and_the_cvv_does_not_differ(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (here, there) = (Service::start(&db).await, Service::start(&db).await);
    here.gateway.then(&[Turn::Hold]);
    let acme = here.merchant("acme").await;
    let request = acme.pay("10").key("k");
    let first = tokio::spawn(async move { request.send().await });
    here.until_unsettled(1).await;
    let mut changed: Value = payment("10");
    changed["customer"]["email"] = json!("b@example.com");
    changed["metadata"] = json!({"order": "1"});
    for node in [&here, &there] {
        let other = acme.at(node).post("/v1/payments", changed.clone()).key("k");
        assert_changed(&other.send().await, &["customer.email", "metadata.order"]);
    }
    here.gateway.release();
    let other_cvv = payment("10").to_string().replace("737", "999");
    let second = acme.pay("10").key("k").body(other_cvv).send().await;
    let first = first.await.expect("no panic");
    assert_eq!((second.status.as_u16(), second.replayed()), (201, true));
    assert_eq!(second.bytes, first.bytes);
}
