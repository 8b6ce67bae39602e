//! The exact shape of the replies: names, order and spelling of each field.

use chrono::{DateTime, Utc};
use insta::assert_snapshot;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::service::{Answer, Service, payment};

/// The body with one field per line. Values that differ between runs are replaced by names.
fn shape(answer: &Answer) -> String {
    let mut text = String::from_utf8(answer.bytes.clone()).expect("text");
    let names = [
        "id",
        "paymentId",
        "gatewayTransactionId",
        "gatewayRefundId",
        "resourceId",
    ];
    for name in names.into_iter().chain([
        "createdAt",
        "updatedAt",
        "completedAt",
        "expiresAt",
        "fingerprint",
    ]) {
        for value in values_of(&answer.json(), name) {
            let shown = match (name, value.split_once('_')) {
                ("fingerprint", _) => format!("<{} digits>", value.len()),
                (name, _) if name.ends_with("At") => {
                    let time: DateTime<Utc> = value.parse().expect("RFC 3339");
                    assert!(value.ends_with('Z') && (Utc::now() - time).num_days().abs() < 2);
                    "<time>".to_owned()
                }
                (_, Some((kind, _))) => format!("<{kind}_…>"),
                // A customer's.
                (_, None) => continue,
            };
            let named = format!("\"{name}\":");
            text = text.replace(&format!("{named}\"{value}\""), &format!("{named}{shown}"));
            if shown.ends_with("_…>") {
                text = text.replace(&value, &shown);
            }
        }
    }
    text.replace(",\"", ",\n\"")
}

fn values_of(value: &Value, name: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(have, value)| match value {
                Value::String(text) if have == name => vec![text.clone()],
                value => values_of(value, name),
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .flat_map(|item| values_of(item, name))
            .collect(),
        _ => Vec::new(),
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payment_and_its_key(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let mut body = payment("99.99");
    body["description"] = json!("Tea, \"green\"\nand more ☕");
    body["metadata"] = json!({"z": "1", "a": "2"});
    let paid = acme.post("/v1/payments", body).key("k-1").send().await;
    assert_snapshot!(shape(&paid), @r#"
    {"id":<pay_…>,
    "idempotencyKey":"k-1",
    "state":"SUCCESS",
    "amount":"99.99",
    "currency":"USD",
    "captureMethod":"AUTOMATIC",
    "amountCaptured":"99.99",
    "amountRefunded":"0.00",
    "paymentMethod":{"type":"CARD",
    "details":{"brand":"visa",
    "last4":"4242",
    "expiryMonth":12,
    "expiryYear":2031,
    "cardHolderName":"Test User"}},
    "customer":{"id":"c-1",
    "email":"a@example.com",
    "name":"A"},
    "gatewayType":"SIMULATED",
    "gatewayTransactionId":<sim_…>,
    "failure":null,
    "description":"Tea, \"green\"\nand more ☕",
    "metadata":{"a":"2",
    "z":"1"},
    "createdAt":<time>,
    "updatedAt":<time>}
    "#);
    assert_eq!(paid.header("content-type"), Some("application/json"));
    let id = paid.text("id");
    assert_eq!(
        paid.header("location"),
        Some(format!("/v1/payments/{id}").as_str())
    );
    let uuid: uuid::Uuid = id["pay_".len()..].parse().expect("a UUID");
    assert_eq!(uuid.get_version_num(), 7);
    assert_snapshot!(shape(&acme.get("/v1/idempotency-keys/create_payment/k-1").await), @r#"
    {"operation":"create_payment",
    "key":"k-1",
    "state":"COMPLETED",
    "fingerprint":<16 digits>,
    "attempts":1,
    "responseStatus":201,
    "resourceId":<pay_…>,
    "createdAt":<time>,
    "completedAt":<time>,
    "expiresAt":<time>}
    "#);
    let listed = acme.get("/v1/payments").await;
    assert_eq!(
        listed.bytes,
        [
            b"{\"data\":[",
            paid.bytes.as_slice(),
            b"],\"nextCursor\":null}"
        ]
        .concat()
    );
    let expires: DateTime<Utc> = acme
        .get("/v1/idempotency-keys/create_payment/k-1")
        .await
        .text("expiresAt")
        .parse()
        .expect("a time");
    let header = paid.header("idempotency-key-expires").expect("the header");
    assert_eq!(header, httpdate::fmt_http_date(expires.into()));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payment_of_the_fewest_fields(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let body = json!({"amount": 1200, "currency": "JPY", "captureMethod": "MANUAL",
        "paymentMethod": {"type": "CARD", "token": "pm_card_visa"}});
    let held = acme.post("/v1/payments", body).key("k").send().await;
    assert_snapshot!(shape(&held), @r#"
    {"id":<pay_…>,
    "idempotencyKey":"k",
    "state":"AUTHORIZED",
    "amount":"1200",
    "currency":"JPY",
    "captureMethod":"MANUAL",
    "amountCaptured":"0",
    "amountRefunded":"0",
    "paymentMethod":{"type":"CARD",
    "details":{"brand":"visa",
    "last4":"4242",
    "expiryMonth":12,
    "expiryYear":2034,
    "cardHolderName":null}},
    "customer":{"id":null,
    "email":null,
    "name":null},
    "gatewayType":"SIMULATED",
    "gatewayTransactionId":<sim_…>,
    "failure":null,
    "description":null,
    "metadata":{},
    "createdAt":<time>,
    "updatedAt":<time>}
    "#);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_declined_payment(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let declined = acme.pay("5").key("k").card("4000000000009995").send().await;
    assert_snapshot!(shape(&declined), @r#"
    {"type":"/problems/payment-declined",
    "title":"The gateway declined",
    "status":402,
    "detail":"Insufficient funds",
    "code":"payment-declined",
    "retry":"new-key",
    "charged":"no",
    "declineCode":"insufficient_funds",
    "paymentId":<pay_…>}
    "#);
    let path = format!("/v1/payments/{}", declined.text("paymentId"));
    assert_snapshot!(shape(&acme.get(&path).await), @r#"
    {"id":<pay_…>,
    "idempotencyKey":"k",
    "state":"FAILED",
    "amount":"5.00",
    "currency":"USD",
    "captureMethod":"AUTOMATIC",
    "amountCaptured":"0.00",
    "amountRefunded":"0.00",
    "paymentMethod":{"type":"CARD",
    "details":{"brand":"visa",
    "last4":"9995",
    "expiryMonth":12,
    "expiryYear":2031,
    "cardHolderName":"Test User"}},
    "customer":{"id":"c-1",
    "email":"a@example.com",
    "name":"A"},
    "gatewayType":"SIMULATED",
    "gatewayTransactionId":null,
    "failure":{"code":"insufficient_funds",
    "message":"Insufficient funds"},
    "description":null,
    "metadata":{},
    "createdAt":<time>,
    "updatedAt":<time>}
    "#);
    assert_snapshot!(shape(&acme.get("/v1/idempotency-keys/create_payment/k").await), @r#"
    {"operation":"create_payment",
    "key":"k",
    "state":"FAILED",
    "fingerprint":<16 digits>,
    "attempts":1,
    "responseStatus":402,
    "resourceId":<pay_…>,
    "createdAt":<time>,
    "completedAt":<time>,
    "expiresAt":<time>}
    "#);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refund_and_the_refusal_of_one(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let id = acme
        .pay("1.234")
        .key("k")
        .body(payment("1.234").to_string().replace("USD", "KWD"))
        .send()
        .await
        .text("id");
    let path = format!("/v1/payments/{id}/refunds");
    let refund = acme
        .post(&path, json!({"amount": "1", "reason": "broken"}))
        .key("r")
        .send()
        .await;
    assert_snapshot!(shape(&refund), @r#"
    {"id":<ref_…>,
    "paymentId":<pay_…>,
    "amount":"1.000",
    "currency":"KWD",
    "state":"SUCCESS",
    "reason":"broken",
    "gatewayRefundId":<sim_…>,
    "createdAt":<time>}
    "#);
    let listed = acme.get(&path).await.json();
    assert_eq!(listed, json!({"data": [refund.json()], "nextCursor": null}));
    let more = acme
        .post(&path, json!({"amount": 1}))
        .key("more")
        .send()
        .await;
    assert_snapshot!(shape(&more), @r#"
    {"type":"/problems/amount-too-large",
    "title":"The amount is more than what is left",
    "status":422,
    "detail":"1.000 KWD is more than the 0.234 KWD that are left",
    "code":"amount-too-large",
    "retry":"new-key",
    "charged":"no",
    "paymentId":<pay_…>,
    "remaining":"0.234"}
    "#);
    let cancel = acme
        .post(&format!("/v1/payments/{id}/cancel"), json!({}))
        .key("c")
        .send()
        .await;
    assert_snapshot!(shape(&cancel), @r#"
    {"type":"/problems/payment-state-conflict",
    "title":"The payment's state does not allow this",
    "status":409,
    "detail":"a payment in PARTIALLY_REFUNDED cannot be canceled",
    "code":"payment-state-conflict",
    "retry":"no",
    "charged":"no",
    "paymentId":<pay_…>,
    "state":"PARTIALLY_REFUNDED"}
    "#);
    assert_snapshot!(shape(&acme.get("/v1/idempotency-keys/refund_payment/r").await), @r#"
    {"operation":"refund_payment",
    "key":"r",
    "state":"COMPLETED",
    "fingerprint":<16 digits>,
    "attempts":1,
    "responseStatus":201,
    "resourceId":<ref_…>,
    "createdAt":<time>,
    "completedAt":<time>,
    "expiresAt":<time>}
    "#);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_refusals_that_name_something(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    acme.pay("50").key("k").send().await;
    let mut reused = shape(&acme.pay("500").key("k").send().await);
    let record = acme.get("/v1/idempotency-keys/create_payment/k").await;
    reused = reused.replace(&record.text("fingerprint"), "<the record's fingerprint>");
    let (start, end) = reused
        .split_once("\"actualHash\":\"")
        .expect("the other hash");
    let reused = format!(
        "{start}\"actualHash\":\"<{} digits>{}",
        end.find('"').expect("its end"),
        &end[16..]
    );
    assert_snapshot!(reused, @r#"
    {"type":"/problems/idempotency-key-reused",
    "title":"The key was used with another request",
    "status":422,
    "detail":"the key was used with another request",
    "code":"idempotency-key-reused",
    "retry":"no",
    "charged":"yes",
    "actualHash":"<16 digits>",
    "changed":["amount"],
    "expectedHash":"<the record's fingerprint>"}
    "#);
    let invalid = acme.post(
        "/v1/payments",
        json!({"amount": 0, "currency": "usd", "paymentMethod": {"type": "CARD"}, "vip": 1}),
    );
    assert_snapshot!(shape(&invalid.key("i").send().await), @r#"
    {"type":"/problems/validation-failed",
    "title":"The request is not valid",
    "status":422,
    "detail":"4 fields are not valid",
    "code":"validation-failed",
    "retry":"fix-request",
    "errors":[{"field":"amount",
    "message":"must be greater than zero"},{"field":"currency",
    "message":"must be an ISO 4217 code in upper case, such as USD"},{"field":"paymentMethod.details",
    "message":"is required, or `token` in its place"},{"field":"vip",
    "message":"is not a known field"}]}
    "#);
    sqlx::query("update idempotency_keys set expires_at = now() - interval '1 second'")
        .execute(&service.pool)
        .await
        .expect("the row's time is moved");
    let node = Service::start(&db).await;
    assert_snapshot!(shape(&acme.at(&node).pay("50").key("k").send().await), @r#"
    {"type":"/problems/idempotency-key-expired",
    "title":"The key has expired, and was used",
    "status":409,
    "detail":"the key has expired; it made <pay_…>",
    "code":"idempotency-key-expired",
    "retry":"no",
    "charged":"yes",
    "createdAt":<time>,
    "resourceId":<pay_…>}
    "#);
    assert_snapshot!(shape(&acme.pay("50").send().await), @r#"
    {"type":"/problems/idempotency-key-missing",
    "title":"The Idempotency-Key header is missing",
    "status":400,
    "detail":"The Idempotency-Key header is missing",
    "code":"idempotency-key-missing",
    "retry":"fix-request"}
    "#);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_key_is_found_however_it_must_be_written_in_a_path(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let (acme, globex) = (
        service.merchant("acme").await,
        service.merchant("globex").await,
    );
    let longest = "k".repeat(255);
    for key in [
        "a/b",
        "100%",
        "%2F",
        "a?b#c",
        "a+b&c=d",
        "{}[]|^`<>~",
        longest.as_str(),
    ] {
        assert_eq!(acme.pay("1").key(key).send().await.status, 201, "{key}");
        let encoded: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/v1/idempotency-keys/create_payment/{encoded}");
        let record = acme.get(&path).await;
        assert_eq!(
            (record.status.as_u16(), record.text("key")),
            (200, key.to_owned())
        );
        globex
            .get(&path)
            .await
            .assert_problem(404, "not-found", "fix-request");
    }
    // In the header a quoted string has escapes; in the path it is the bare key.
    let quoted = acme.pay("1").key(r#""say\"yes\\no""#).send().await;
    assert_eq!(quoted.status, 201);
    let path = "/v1/idempotency-keys/create_payment/say%22yes%5Cno";
    assert_eq!(acme.get(path).await.text("key"), r#"say"yes\no"#);
}
