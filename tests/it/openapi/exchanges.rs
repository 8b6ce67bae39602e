//! Each example request is sent to a service, whose answer must equal the example reply of the same name.

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::document::{Call, Document};
use crate::support::scripted::Turn;
use crate::support::service::{Answer, Merchant, Request, Service};

/// The values that differ between payments.
const VARYING: [&str; 10] = [
    "id",
    "paymentId",
    "resourceId",
    "gatewayTransactionId",
    "gatewayRefundId",
    "createdAt",
    "updatedAt",
    "completedAt",
    "expiresAt",
    "fingerprint",
];

/// A merchant that sends the document's examples, and its payments and refunds.
pub struct Reader<'a> {
    pub document: &'a Document,
    pub merchant: Merchant,
}

impl<'a> Reader<'a> {
    /// A merchant of its own each time: the example keys are used as they are.
    pub async fn new(document: &'a Document, service: &Service) -> Self {
        let id = uuid::Uuid::now_v7().to_string();
        Self {
            document,
            merchant: service.merchant(&id).await,
        }
    }

    pub fn request(&self, call: &Call<'_>, path: &str, body: &Value) -> Request {
        let header = |name: &str| self.document.parameter(call, name).unwrap_or_default();
        self.merchant
            .post(path, body.clone())
            .key(&header("Idempotency-Key"))
            .header("prefer", &header("Prefer"))
            .header("x-request-id", &header("X-Request-Id"))
    }

    async fn make(&self, id: &str, path: &str, example: &str) -> String {
        let call = self.document.call(id);
        let examples = self.document.request_examples(&call);
        let (_, body) = examples
            .iter()
            .find(|(name, _)| *name == example)
            .expect("the example");
        let answer = self.request(&call, path, body).send().await;
        assert_eq!(answer.status, 201, "{example}");
        answer.text("id")
    }

    /// The path of a call, after creating what it needs.
    pub async fn path_of(&self, call: &Call<'_>) -> String {
        let payment = match call.id() {
            "create_payment" => return call.path.to_owned(),
            "capture_payment" | "cancel_payment" => Some("manual"),
            _ if call.path.starts_with("/v1") => Some("card"),
            _ => None,
        };
        let mut path = call.path.to_owned();
        if let Some(example) = payment {
            let mut id = self.make("create_payment", "/v1/payments", example).await;
            if matches!(call.id(), "get_refund" | "list_refunds") {
                let refunds = format!("/v1/payments/{id}/refunds");
                let refund = self.make("refund_payment", &refunds, "part").await;
                if call.id() == "get_refund" {
                    id = refund;
                }
            }
            path = path.replace("{id}", &id);
        }
        for parameter in self.document.parameters(call) {
            let (name, example) = (&parameter["name"], &parameter["example"]);
            let pattern = format!("{{{}}}", name.as_str().expect("a name"));
            path = path.replace(&pattern, example.as_str().unwrap_or_default());
        }
        path
    }
}

/// Equal except for the values that vary.
fn masked(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members {
                *member = match member.take() {
                    Value::String(_) if VARYING.contains(&name.as_str()) => json!("*"),
                    member => masked(member),
                };
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| *item = masked(item.take())),
        _ => {}
    }
    value
}

#[track_caller]
fn assert_is_example(document: &Document, call: &Call<'_>, name: &str, answer: &Answer) {
    let context = format!("{} {name}", call.id());
    let replies = document.replies(call);
    let (reply, example) = replies
        .iter()
        .find_map(|reply| {
            let (_, example) = reply.examples.iter().find(|(known, _)| *known == name)?;
            Some((reply, *example))
        })
        .unwrap_or_else(|| panic!("{context}: no reply has this name"));
    reply.assert_describes(document, answer, &context);
    assert_eq!(masked(answer.json()), masked(example.clone()), "{context}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_example_request_gets_its_example_reply(_: PgPoolOptions, db: PgConnectOptions) {
    let (document, service) = (Document::strict(), Service::start(&db).await);
    let mut sent = 0;
    for call in document.calls().iter().filter(|call| call.method == "post") {
        let examples = document.request_examples(call);
        assert!(!examples.is_empty(), "{} has no example", call.id());
        for (name, body) in examples {
            let reader = Reader::new(&document, &service).await;
            let path = reader.path_of(call).await;
            let request = reader.request(call, &path, body);
            let first = request.send().await;
            assert_is_example(&document, call, name, &first);
            let again = request.send().await;
            assert_eq!(again.bytes, first.bytes, "{} {name} again", call.id());
            let replayed = first.header("idempotent-replayed").map(|_| "true");
            assert_eq!(again.header("idempotent-replayed"), replayed);
            sent += 1;
        }
    }
    assert!(sent >= 12, "{sent}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_gateway_that_does_not_answer_gets_the_documented_202(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (document, service) = (Document::strict(), Service::start(&db).await);
    for call in document.calls().iter().filter(|call| call.method == "post") {
        let reader = Reader::new(&document, &service).await;
        let path = reader.path_of(call).await;
        service.gateway.then(&[Turn::Unknown]);
        let (_, body) = document.request_examples(call)[0];
        let answer = reader.request(call, &path, body).send().await;
        assert_is_example(&document, call, "processing", &answer);
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_read_gets_its_example_reply(_: PgPoolOptions, db: PgConnectOptions) {
    let (document, service) = (Document::strict(), Service::start(&db).await);
    for call in document.calls().iter().filter(|call| call.method == "get") {
        let reader = Reader::new(&document, &service).await;
        let path = reader.path_of(call).await;
        let answer = reader.merchant.get(&path).await;
        let replies = document.replies(call);
        let reply = replies
            .iter()
            .find(|reply| reply.status == 200)
            .expect("a success");
        reply.assert_describes(&document, &answer, call.id());
        for (name, _) in &reply.examples {
            assert_is_example(&document, call, name, &answer);
        }
        let is_query = |parameter: &&Value| parameter["in"] == "query";
        for parameter in document.parameters(call).into_iter().filter(is_query) {
            let name = parameter["name"].as_str().expect("a name");
            let example = document.parameter(call, name).expect("an example");
            let answer = reader
                .merchant
                .get(&format!("{path}?{name}={example}"))
                .await;
            reply.assert_describes(&document, &answer, name);
        }
    }
}
