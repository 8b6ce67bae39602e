//! The operations on a payment, and the bounds of its amounts.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::service::{Answer, Merchant, Service, payment};

async fn authorize(merchant: &Merchant, key: &str, amount: &str) -> String {
    let mut body = payment(amount);
    body["captureMethod"] = json!("MANUAL");
    let answer = merchant.post("/v1/payments", body).key(key).send().await;
    assert_eq!(answer.text("state"), "AUTHORIZED");
    answer.text("id")
}

async fn on(merchant: &Merchant, id: &str, what: &str, key: &str, body: Value) -> Answer {
    merchant
        .post(&format!("/v1/payments/{id}/{what}"), body)
        .key(key)
        .send()
        .await
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_held_payment_is_captured_once(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let id = authorize(&acme, "a", "99.99").await;
    let more = on(&acme, &id, "capture", "c0", json!({"amount": "100"})).await;
    more.assert_problem(422, "amount-too-large", "new-key");
    assert_eq!(more.text("remaining"), "99.99");
    let captured = on(&acme, &id, "capture", "c1", json!({"amount": "50.00"})).await;
    assert_eq!(
        (captured.status.as_u16(), captured.text("state")),
        (200, "SUCCESS".to_owned())
    );
    assert_eq!(captured.text("amountCaptured"), "50.00");
    let again = on(&acme, &id, "capture", "c1", json!({"amount": 50})).await;
    assert!(again.replayed());
    assert_eq!(again.bytes, captured.bytes);
    let twice = on(&acme, &id, "capture", "c2", json!({})).await;
    twice.assert_problem(409, "payment-state-conflict", "no");
    assert_eq!(twice.text("state"), "SUCCESS");
    assert_eq!(
        on(&acme, &id, "capture", "c2", json!({})).await.bytes,
        twice.bytes
    );
    assert_eq!(
        acme.get(&format!("/v1/payments/{id}")).await.bytes,
        captured.bytes
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_held_payment_is_let_go(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let id = authorize(&acme, "a", "10").await;
    let canceled = on(&acme, &id, "cancel", "x", json!({})).await;
    assert_eq!(canceled.text("state"), "CANCELED");
    let again = acme
        .post(&format!("/v1/payments/{id}/cancel"), json!({}))
        .key("x")
        .body("");
    assert_eq!(
        again.send().await.bytes,
        canceled.bytes,
        "an empty body is the same request"
    );
    on(&acme, &id, "capture", "c", json!({}))
        .await
        .assert_problem(409, "payment-state-conflict", "no");
    on(&acme, &id, "refunds", "r", json!({}))
        .await
        .assert_problem(409, "payment-state-conflict", "no");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn refunds_end_with_what_was_captured(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("30.00").key("p").send().await.text("id");
    let part = on(
        &acme,
        &id,
        "refunds",
        "r1",
        json!({"amount": "12.5", "reason": "broken"}),
    )
    .await;
    assert_eq!(part.status, 201);
    assert_eq!(part.json()["state"], "SUCCESS");
    assert_eq!(
        part.header("location"),
        Some(format!("/v1/refunds/{}", part.text("id")).as_str())
    );
    assert_eq!(
        acme.get(&format!("/v1/refunds/{}", part.text("id")))
            .await
            .bytes,
        part.bytes
    );
    let shown = acme.get(&format!("/v1/payments/{id}")).await;
    assert_eq!(
        (shown.text("state"), shown.text("amountRefunded")),
        ("PARTIALLY_REFUNDED".into(), "12.50".into())
    );
    let more = on(&acme, &id, "refunds", "r2", json!({"amount": "17.51"})).await;
    more.assert_problem(422, "amount-too-large", "new-key");
    assert_eq!(more.text("remaining"), "17.50");
    let bad = on(&acme, &id, "refunds", "r3", json!({"amount": "1.234"})).await;
    bad.assert_problem(422, "validation-failed", "fix-request");
    assert_eq!(bad.json()["errors"][0]["field"], "amount");
    let rest = on(&acme, &id, "refunds", "r3", json!({})).await;
    assert_eq!(
        rest.text("amount"),
        "17.50",
        "the key of a request that was not valid is still good"
    );
    assert_eq!(
        acme.get(&format!("/v1/payments/{id}")).await.text("state"),
        "REFUNDED"
    );
    let listed = acme.get(&format!("/v1/payments/{id}/refunds")).await.json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));
}

/// Like a client that follows `retry`: while another operation is under way, or its turn does not come in time, it sends the request
/// again.
async fn until_idle(acme: &Merchant, id: &str, what: &str, key: &str, body: Value) -> Answer {
    loop {
        let answer = on(acme, id, what, key, body.clone()).await;
        let code = answer.text("code");
        if code != "payment-busy" && code != "overloaded" {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn concurrent_refunds_never_pass_the_amount(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10.00").key("p").send().await.text("id");
    let keys: Vec<String> = (0..20).map(|i| format!("r{i}")).collect();
    let sent = keys
        .iter()
        .map(|key| until_idle(&acme, &id, "refunds", key, json!({"amount": "3"})));
    let answers = join_all(sent).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 3);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        refused.assert_problem(422, "amount-too-large", "new-key");
    }
    assert_eq!(
        acme.get(&format!("/v1/payments/{id}"))
            .await
            .text("amountRefunded"),
        "9.00"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn concurrent_captures_and_cancels_are_one(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let id = authorize(&acme, "a", "10").await;
    let keys: Vec<String> = (0..12).map(|i| format!("k{i}")).collect();
    let sent = keys.iter().enumerate().map(|(i, key)| {
        let what = if i % 3 == 0 { "cancel" } else { "capture" };
        until_idle(&acme, &id, what, key, json!({}))
    });
    let answers = join_all(sent).await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        1
    );
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        refused.assert_problem(409, "payment-state-conflict", "no");
    }
    assert_eq!(service.gateway.adjustments(), 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_list_pages_from_the_newest_back(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let mut made = Vec::new();
    for (i, amount) in ["1", "2", "3", "4", "5"].iter().enumerate() {
        made.push(
            acme.pay(amount)
                .key(&format!("k{i}"))
                .send()
                .await
                .text("id"),
        );
    }
    acme.pay("6")
        .key("declined")
        .card("4000000000000002")
        .send()
        .await;
    made.reverse();
    let mut seen = Vec::new();
    let mut path = "/v1/payments?limit=2&state=SUCCESS&customerId=c-1".to_owned();
    loop {
        let page = acme.get(&path).await.json();
        let data = page["data"].as_array().expect("a list").clone();
        assert!(data.len() <= 2);
        seen.extend(
            data.iter()
                .map(|payment| payment["id"].as_str().expect("an id").to_owned()),
        );
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/v1/payments?limit=2&state=SUCCESS&customerId=c-1&cursor={cursor}");
    }
    assert_eq!(seen, made);
    let nobody = acme.get("/v1/payments?customerId=c-2").await.json();
    assert_eq!(nobody, json!({"data": [], "nextCursor": null}));
    let wrong = acme.get("/v1/payments?limit=101&state=PAID&cursor=x").await;
    wrong.assert_problem(422, "validation-failed", "fix-request");
    assert_eq!(wrong.json()["errors"].as_array().map(Vec::len), Some(3));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn amounts_are_exact_in_each_currency(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    for (key, amount, currency, shown) in [
        ("a", "1", "JPY", "1"),
        ("b", "\"1.234\"", "KWD", "1.234"),
        ("c", "9007199254740.93", "USD", "9007199254740.93"),
        ("d", "0.1", "USD", "0.10"),
        ("e", "1.1e1", "USD", "11.00"),
    ] {
        let body = payment("AMOUNT").to_string();
        let body = body.replace("\"AMOUNT\"", amount).replace("USD", currency);
        let paid = acme.pay("1").key(key).body(body).send().await;
        assert_eq!(paid.text("amount"), shown);
        assert_eq!(paid.text("amountCaptured"), shown);
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_token_in_place_of_a_card(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let body = |token: &str| json!({"amount": "5", "currency": "USD", "paymentMethod": {"type": "CARD", "token": token}});
    let paid = acme
        .post("/v1/payments", body("pm_card_visa"))
        .key("t")
        .send()
        .await;
    assert_eq!(paid.json()["paymentMethod"]["details"]["last4"], "4242");
    assert_eq!(
        paid.json()["customer"],
        json!({"id": null, "email": null, "name": null})
    );
    let unknown = acme
        .post("/v1/payments", body("pm_nobody"))
        .key("u")
        .send()
        .await;
    unknown.assert_problem(422, "gateway-refused", "fix-request");
    assert_eq!(unknown.text("param"), "paymentMethod.token");
    let corrected = acme.post("/v1/payments", body("pm_card_visa")).key("u");
    assert_eq!(corrected.send().await.status, 201, "the key is still good");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_test_card_has_its_outcome(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    for (card, code) in [
        ("4000000000000002", "generic_decline"),
        ("4000000000009995", "insufficient_funds"),
        ("4000000000009987", "lost_card"),
        ("4000000000009979", "stolen_card"),
        ("4000000000000069", "expired_card"),
        ("4000000000000127", "incorrect_cvc"),
        ("4000000000000119", "processing_error"),
    ] {
        let declined = acme.pay("1").card(card).key(card).send().await;
        declined.assert_problem(402, "payment-declined", "new-key");
        assert_eq!(declined.text("declineCode"), code);
    }
    let past = acme
        .pay("1")
        .key("past")
        .body(payment("1").to_string().replace("2031", "2020"));
    assert_eq!(past.send().await.text("declineCode"), "expired_card");
}
