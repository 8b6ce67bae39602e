//! Tests of the gateway itself, over real HTTP.

mod contract;
mod faults;
mod idempotency;
mod rules;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;

use super::contract::api_version;
use super::{SECRET_KEY, TestGateway};

/// A client with the secret key and, unless a test reuses it, fresh connections.
struct Caller {
    http: Client,
    base: String,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    replayed: bool,
    body: String,
}

impl Caller {
    fn of(gateway: &TestGateway) -> Self {
        // Another test may have been first; any provider will do, since nothing here is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .no_proxy()
            .build()
            .expect("a client without TLS roots");
        Self {
            http,
            base: gateway.url(),
        }
    }

    fn post(&self, path: &str, key: &str, form: &[(&str, &str)]) -> RequestBuilder {
        let request = self
            .http
            .post(format!("{}{path}", self.base))
            .bearer_auth(SECRET_KEY)
            .header("Stripe-Version", api_version())
            .form(form);
        if key.is_empty() {
            request
        } else {
            request.header("Idempotency-Key", key)
        }
    }

    async fn posted(&self, path: &str, key: &str, form: &[(&str, &str)]) -> Answer {
        Answer::of(self.post(path, key, form).send().await.expect("an answer")).await
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Answer {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.base)).expect("a URL");
        url.query_pairs_mut().extend_pairs(query);
        Answer::of(
            self.http
                .get(url)
                .bearer_auth(SECRET_KEY)
                .header("Stripe-Version", api_version())
                .send()
                .await
                .expect("an answer"),
        )
        .await
    }

    async fn charge(&self, payment_id: &str, token: &str, capture_method: &str) -> Answer {
        self.posted(
            "/v1/payment_intents",
            payment_id,
            &charge_form(payment_id, token, capture_method),
        )
        .await
    }

    /// A held charge of 50.00, and its intent's id.
    async fn held(&self, payment_id: &str) -> String {
        self.charge(payment_id, "pm_card_visa", "manual")
            .await
            .text("id")
    }

    /// A captured charge of 50.00, and its intent's id.
    async fn paid(&self, payment_id: &str) -> String {
        self.charge(payment_id, "pm_card_visa", "automatic")
            .await
            .text("id")
    }
}

fn charge_form<'a>(
    payment_id: &'a str,
    token: &'a str,
    capture_method: &'a str,
) -> [(&'a str, &'a str); 8] {
    [
        ("amount", "5000"),
        ("currency", "usd"),
        ("confirm", "true"),
        ("payment_method", token),
        ("capture_method", capture_method),
        ("metadata[payment_id]", payment_id),
        ("automatic_payment_methods[enabled]", "true"),
        ("automatic_payment_methods[allow_redirects]", "never"),
    ]
}

impl Answer {
    async fn of(response: Response) -> Self {
        Self {
            status: response.status().as_u16(),
            replayed: response
                .headers()
                .get("Idempotent-Replayed")
                .is_some_and(|value| value == "true"),
            body: response.text().await.expect("a whole body"),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// A string in the body, by the names that lead to it: `error.code`. Empty when it isn't there.
    fn text(&self, path: &str) -> String {
        let body = self.json();
        let pointer = format!("/{}", path.replace('.', "/"));
        body.pointer(&pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    fn error(&self) -> (u16, String, String) {
        (
            self.status,
            self.text("error.type"),
            self.text("error.code"),
        )
    }
}

fn error(status: u16, kind: &str, code: &str) -> (u16, String, String) {
    (status, kind.into(), code.into())
}
