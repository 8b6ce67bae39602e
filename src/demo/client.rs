//! A client is a merchant's program. It has an API key, sends requests, and records the replies.

use std::time::{Duration, Instant};

use anyhow::Context;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::server::Server;

/// Maximum time that a client waits for a reply: longer than a request may wait for the gateway, or for another request.
const REPLY_PATIENCE: Duration = Duration::from_secs(20);

/// One merchant's client.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    merchant_id: String,
    api_key: SecretString,
}

impl Client {
    /// A client of a server.
    pub(super) fn new(
        server: &Server,
        merchant_id: String,
        api_key: SecretString,
    ) -> anyhow::Result<Self> {
        // reqwest needs a provider even for plain HTTP. An error means that one is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(REPLY_PATIENCE)
            .build()
            .context("the HTTP client cannot be built")?;
        Ok(Self {
            http,
            base: base(server),
            merchant_id,
            api_key,
        })
    }

    /// Its merchant.
    pub(super) fn merchant_id(&self) -> &str {
        &self.merchant_id
    }

    /// Uses the new address of a server that was restarted.
    pub(super) fn follow(&mut self, server: &Server) {
        self.base = base(server);
    }

    /// `POST /v1/payments`.
    pub(super) async fn pay(&self, key: &str, body: &[u8]) -> anyhow::Result<Reply> {
        self.post("/v1/payments", key, body).await
    }

    /// `POST` with a key.
    pub(super) async fn post(&self, path: &str, key: &str, body: &[u8]) -> anyhow::Result<Reply> {
        let request = self
            .request(Method::POST, path)
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body.to_vec());
        send(request)
            .await
            .with_context(|| format!("POST {path} with the key {key} has no reply"))
    }

    /// `GET`.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        send(self.request(Method::GET, path))
            .await
            .with_context(|| format!("GET {path} has no reply"))
    }

    /// The service's record of a key.
    pub(super) async fn key_record(&self, operation: &str, key: &str) -> anyhow::Result<Reply> {
        self.get(&format!("/v1/idempotency-keys/{operation}/{key}"))
            .await
    }

    /// The merchant's payments, as the service lists them.
    pub(super) async fn payments(&self) -> anyhow::Result<Vec<Value>> {
        let page = self.get("/v1/payments?limit=100").await?;
        let payments = page.json.pointer("/data").and_then(Value::as_array);
        payments
            .cloned()
            .with_context(|| format!("GET /v1/payments gives no list, but {}", page.status))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(self.api_key.expose_secret())
    }
}

fn base(server: &Server) -> String {
    format!("http://{}", server.address())
}

async fn send(request: RequestBuilder) -> reqwest::Result<Reply> {
    let sent = Instant::now();
    let response = request.send().await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.bytes().await?.to_vec();
    Ok(Reply {
        status,
        replayed: header(&headers, "idempotent-replayed"),
        location: header(&headers, "location"),
        json: serde_json::from_slice(&body).unwrap_or_default(),
        body,
        took: sent.elapsed(),
    })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// A reply.
pub(super) struct Reply {
    /// The HTTP status.
    pub(super) status: u16,
    /// The value of `Idempotent-Replayed`.
    pub(super) replayed: Option<String>,
    /// `Location`.
    pub(super) location: Option<String>,
    /// The body's bytes.
    pub(super) body: Vec<u8>,
    /// The body, or `null` if it is not JSON.
    pub(super) json: Value,
    /// Time from the first byte sent to the last byte received.
    pub(super) took: Duration,
}

impl Reply {
    /// A text or a number in the body, by its JSON pointer. Empty if there is none.
    pub(super) fn text(&self, pointer: &str) -> String {
        match self.json.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// Returns true if this request executed.
    pub(super) fn is_first(&self) -> bool {
        self.replayed.as_deref() == Some("false")
    }

    /// Returns true if this is a stored answer.
    pub(super) fn is_replay(&self) -> bool {
        self.replayed.as_deref() == Some("true")
    }

    /// Eight digits by which people can compare two bodies.
    pub(super) fn digest(&self) -> String {
        let digest = Sha256::digest(&self.body);
        digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
