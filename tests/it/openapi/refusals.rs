//! The refusals that a client can provoke are those that the document names, in its shape.

use std::collections::BTreeSet;

use payonce::problem::Code;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::document::Document;
use crate::support::scripted::Turn;
use crate::support::service::{Answer, Service, payment};

/// They need a service, a database or a client in trouble; other tests make them. Their examples are checked against the schema.
const OF_TROUBLE: [&str; 6] = [
    "database-unavailable",
    "internal-error",
    "outcome-unknown",
    "overloaded",
    "rate-limited",
    "request-timeout",
];

struct Met<'a> {
    document: &'a Document,
    slugs: BTreeSet<String>,
}

impl Met<'_> {
    #[track_caller]
    fn check(&mut self, operation: &str, slug: &str, answer: &Answer) {
        let call = self.document.call(operation);
        let replies = self.document.replies(&call);
        let reply = replies
            .iter()
            .find(|reply| reply.examples.iter().any(|(known, _)| *known == slug))
            .unwrap_or_else(|| panic!("{operation} does not name {slug}"));
        assert_eq!(answer.json()["code"], slug);
        reply.assert_describes(self.document, answer, &format!("{operation} {slug}"));
        self.slugs.insert(slug.to_owned());
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_refusal_is_as_documented(_: PgPoolOptions, db: PgConnectOptions) {
    let (document, service) = (Document::strict(), Service::start(&db).await);
    let acme = service.merchant("acme").await;
    let mut met = Met {
        document: &document,
        slugs: BTreeSet::new(),
    };
    let pay = || acme.pay("10").key("k");
    let keyless = acme.pay("10");
    let big = format!("{}{}", payment("10"), " ".repeat(70 * 1024));
    for (slug, request) in [
        ("idempotency-key-missing", keyless.clone()),
        ("idempotency-key-invalid", keyless.key("a b")),
        ("malformed-json", pay().body("{")),
        ("unauthorized", pay().without("authorization")),
        ("not-acceptable", pay().header("accept", "text/html")),
        ("payload-too-large", pay().body(big)),
        ("unsupported-media-type", pay().without("content-type")),
        ("validation-failed", pay().body("{}")),
        (
            "payment-declined",
            acme.pay("10").key("declined").card("4000000000009995"),
        ),
    ] {
        met.check("create_payment", slug, &request.send().await);
    }

    service.gateway.then(&[Turn::Nothing]);
    met.check("create_payment", "gateway-unavailable", &pay().send().await);
    service.gateway.then(&[Turn::Refuse]);
    met.check("create_payment", "gateway-refused", &pay().send().await);
    service.gateway.then(&[Turn::Misconfigured]);
    let barred = pay().send().await;
    met.check("create_payment", "gateway-misconfigured", &barred);
    service.gateway.then(&[Turn::Silence]);
    let silent = pay();
    let silent = tokio::spawn(async move { silent.try_send().await.is_ok() });
    service.until_unsettled(1).await;
    let busy = pay().header("prefer", "wait=0").send().await;
    met.check("create_payment", "idempotency-key-in-use", &busy);
    silent.abort();

    let paid = acme.pay("10").key("paid").send().await;
    let reused = acme.pay("11").key("paid").send().await;
    met.check("create_payment", "idempotency-key-reused", &reused);
    let path = format!("/v1/payments/{}", paid.text("id"));
    let post = |end: &str, body, key: &str| acme.post(&format!("{path}/{end}"), body).key(key);
    let conflict = post("capture", json!({}), "c").send().await;
    met.check("capture_payment", "payment-state-conflict", &conflict);
    let too_large = post("refunds", json!({"amount": 20}), "r").send().await;
    met.check("refund_payment", "amount-too-large", &too_large);
    service.gateway.then(&[Turn::Unknown]);
    post("refunds", json!({"amount": 10}), "under-way")
        .send()
        .await;
    let busy = post("refunds", json!({"amount": 10}), "busy").send().await;
    met.check("refund_payment", "payment-busy", &busy);
    let nowhere = acme
        .post("/v1/payments/pay_x/cancel", json!({}))
        .key("n")
        .send()
        .await;
    met.check("cancel_payment", "not-found", &nowhere);

    sqlx::query("update idempotency_keys set created_at = created_at - interval '2 days', completed_at = completed_at - interval '2 days', expires_at = expires_at - interval '2 days' where key = 'paid'")
        .execute(&service.pool)
        .await
        .expect("the key's time is moved");
    let elsewhere = Service::start(&db).await;
    let late = acme.at(&elsewhere).pay("10").key("paid").send().await;
    met.check("create_payment", "idempotency-key-expired", &late);

    let unknown_method = acme
        .post("/healthz", json!({}))
        .key("m")
        .without("idempotency-key")
        .send()
        .await;
    let reply = document.reply(
        405,
        &document.0["components"]["responses"]["MethodNotAllowed"],
    );
    reply.assert_describes(&document, &unknown_method, "an unknown method");
    met.slugs.insert("method-not-allowed".to_owned());

    let all = Code::ALL.iter().map(|code| code.slug().to_owned());
    let expected: BTreeSet<String> = all
        .filter(|slug| !OF_TROUBLE.contains(&slug.as_str()))
        .collect();
    assert_eq!(met.slugs, expected);
}
