//! The document's limits are the service's: a value at the limit is accepted, and one beyond is refused with the field's name.

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::document::Document;
use crate::support::service::{Merchant, Service};

/// A field of a body: its path, as an error names it, and its schema.
fn fields(document: &Document, name: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    let schema = &document.0["components"]["schemas"][name];
    let mut open = vec![(String::new(), schema)];
    while let Some((path, schema)) = open.pop() {
        let schema = document.resolve(schema);
        if let Some(either) = schema["oneOf"].as_array() {
            open.extend(either.iter().map(|schema| (path.clone(), schema)));
            continue;
        }
        found.push((path.clone(), schema.clone()));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let dot = if path.is_empty() { "" } else { "." };
            open.push((format!("{path}{dot}{name}"), property));
        }
    }
    found
}

struct Writer<'a> {
    acme: &'a Merchant,
    path: &'a str,
    sent: u32,
}

impl Writer<'_> {
    /// The field's error, where the request is refused. A token or a month that the gateway declines, or a token that it does not
    /// know, was taken.
    async fn send(&mut self, body: &Value, field: &str, value: Value) -> Option<String> {
        self.sent += 1;
        let mut body = body.clone();
        *place(&mut body, field) = value;
        let key = format!("key-{}", self.sent);
        let answer = self.acme.post(self.path, body).key(&key).send().await;
        let is_taken = matches!(answer.status.as_u16(), 201 | 402);
        if is_taken || answer.text("code") == "gateway-refused" {
            return None;
        }
        answer.assert_problem(422, "validation-failed", "fix-request");
        Some(
            answer.json()["errors"][0]["field"]
                .as_str()
                .expect("a field")
                .to_owned(),
        )
    }
}

fn place<'a>(body: &'a mut Value, field: &str) -> &'a mut Value {
    field.split('.').fold(body, |value, name| &mut value[name])
}

/// A text of this many characters in the field's format.
fn text(field: &str, length: usize) -> Value {
    match field {
        "customer.email" if length >= 8 => json!("a".repeat(length - 8) + "@b.other"),
        _ => json!("a".repeat(length)),
    }
}

fn length(schema: &Value, name: &str) -> Option<usize> {
    schema[name]
        .as_u64()
        .and_then(|length| usize::try_from(length).ok())
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_just_fits_is_taken_and_one_more_is_refused(_: PgPoolOptions, db: PgConnectOptions) {
    let (document, service) = (Document::strict(), Service::start(&db).await);
    let acme = service.merchant("acme").await;
    let paid = acme.pay("1000").key("paid").send().await.text("id");
    let refunds = format!("/v1/payments/{paid}/refunds");
    let mut limits = 0;
    for (schema, call, path) in [
        ("NewPayment", "create_payment", "/v1/payments"),
        ("RefundPayment", "refund_payment", &refunds),
    ] {
        let call = document.call(call);
        let examples = document.request_examples(&call);
        let body = |name: &str| {
            let example = examples.iter().find(|(known, _)| *known == name);
            example.map(|(_, body)| (*body).clone())
        };
        let refund = json!({"amount": 1});
        let mut writer = Writer {
            acme: &acme,
            path,
            sent: 0,
        };
        for (field, schema) in fields(&document, schema) {
            // A token replaces the card.
            let name = if field.ends_with("token") {
                "token"
            } else {
                "card"
            };
            let body = body(name).unwrap_or_else(|| refund.clone());
            if let Some(most) = length(&schema, "maxLength") {
                let fits = writer.send(&body, &field, text(&field, most)).await;
                assert_eq!(fits, None, "{most} of {field}");
                let more = writer.send(&body, &field, text(&field, most + 1)).await;
                assert_eq!(more.as_deref(), Some(&*field), "{most} + 1 of {field}");
                limits += 1;
            }
            if let Some(least) = length(&schema, "minLength") {
                let less = writer.send(&body, &field, text(&field, least - 1)).await;
                assert_eq!(less.as_deref(), Some(&*field), "{least} - 1 of {field}");
            }
            for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
                if let Some(bound) = schema[bound].as_i64() {
                    let fits = writer.send(&body, &field, json!(bound)).await;
                    assert_eq!(fits, None, "{bound} in {field}");
                    let more = writer.send(&body, &field, json!(bound + beyond)).await;
                    assert_eq!(
                        more.as_deref(),
                        Some(&*field),
                        "{bound} + {beyond} in {field}"
                    );
                    limits += 1;
                }
            }
            if schema["additionalProperties"] == false {
                let unknown = format!("{field}.unknown");
                let unknown = unknown.trim_start_matches('.');
                let error = writer.send(&body, unknown, json!(1)).await;
                assert_eq!(error.as_deref(), Some(unknown));
            }
        }
    }
    assert!(limits >= 10, "{limits}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn notes_have_the_documented_limits(_: PgPoolOptions, db: PgConnectOptions) {
    let (document, service) = (Document::strict(), Service::start(&db).await);
    let acme = service.merchant("acme").await;
    let notes = &document.0["components"]["schemas"]["NewPayment"]["properties"]["metadata"];
    let most = length(notes, "maxProperties").expect("a limit");
    let name = length(&notes["propertyNames"], "maxLength").expect("a limit");
    let value = length(&notes["additionalProperties"], "maxLength").expect("a limit");
    let notes = |entries: usize, name: usize, value: usize| -> Value {
        let entry = |index| (format!("{index:0name$}"), json!("a".repeat(value)));
        Value::Object((0..entries).map(entry).collect())
    };
    for (metadata, status) in [
        (notes(most, 2, 1), 201),
        (notes(most + 1, 2, 1), 422),
        (notes(1, name, 1), 201),
        (notes(1, name + 1, 1), 422),
        (notes(1, 1, value), 201),
        (notes(1, 1, value + 1), 422),
    ] {
        let mut body = crate::support::service::payment("1");
        body["metadata"] = metadata;
        let key = uuid::Uuid::now_v7().to_string();
        let answer = acme.post("/v1/payments", body).key(&key).send().await;
        assert_eq!(answer.status, status);
    }
    let call = document.call("list_payments");
    let limit = document
        .parameters(&call)
        .into_iter()
        .find(|p| p["name"] == "limit");
    let most = limit.expect("limit")["schema"]["maximum"]
        .as_u64()
        .expect("a limit");
    assert_eq!(
        acme.get(&format!("/v1/payments?limit={most}")).await.status,
        200
    );
    assert_eq!(
        acme.get(&format!("/v1/payments?limit={}", most + 1))
            .await
            .status,
        422
    );
}
