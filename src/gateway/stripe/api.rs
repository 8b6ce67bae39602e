//! One request and its answer. What the answer means is decided elsewhere.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request, Response, Url};
use secrecy::{ExposeSecret, SecretString};

use super::text;

/// The version of Stripe's API that this adapter speaks, sent with each call: that of `contract/contract.json`.
const API_VERSION: &str = "2026-10-28.endive";

/// The longest that connecting may take. A host that does not answer by then counts as down.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// Idle connections are closed before a load balancer in front of the API does it, which would look like a lost answer.
const POOL_IDLE_TIME: Duration = Duration::from_secs(45);
const POOL_MAX_IDLE: usize = 128;

/// Maximum size of an answer. It is far above the largest answer that is read here: a page of a hundred intents with all the
/// metadata that Stripe allows.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Why a gateway cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StripeSetupError {
    /// The base is not an `http` or `https` URL.
    #[error("the Stripe API's base is not an http or https URL")]
    ApiBase,
    /// The key has characters that a header must not have.
    #[error("the Stripe secret key has characters that no key has")]
    SecretKey,
    /// The HTTP client failed. Most likely the system has no root certificates.
    #[error("the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// A request to make. Not `Debug`: a card's number may be in it.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    is_post: bool,
    path: &'a [&'a str],
    key: Option<&'a str>,
    params: &'a [(&'a str, &'a str)],
    account: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// A POST under an idempotency key. The path begins after `/v1`.
    pub(super) fn post(
        path: &'a [&'a str],
        key: &'a str,
        params: &'a [(&'a str, &'a str)],
    ) -> Self {
        Self {
            is_post: true,
            path,
            key: Some(key),
            params,
            account: None,
        }
    }

    pub(super) fn get(path: &'a [&'a str], params: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            is_post: false,
            path,
            key: None,
            params,
            account: None,
        }
    }

    /// The same call for a merchant's own account.
    pub(super) fn on(self, account: Option<&'a str>) -> Self {
        Self { account, ..self }
    }

    /// The same call under another key.
    pub(super) fn under(self, key: &'a str) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// Whether its account has the form of an account's id. Otherwise nothing is sent.
    pub(super) fn has_sendable_account(&self) -> bool {
        self.account
            .is_none_or(|account| text::is_id(account, "acct_"))
    }

    fn method(&self) -> Method {
        match self.is_post {
            true => Method::POST,
            false => Method::GET,
        }
    }

    /// The idempotency key. Empty if there is none.
    pub(super) fn key(&self) -> &str {
        self.key.unwrap_or_default()
    }

    /// For the log.
    pub(super) fn name(&self) -> String {
        format!("{} /v1/{}", self.method(), self.path.join("/"))
    }
}

/// The result of a request. Its texts are for the log, and contain nothing that was sent.
#[derive(Debug)]
pub(super) enum Attempt {
    /// No connection was made, so nothing was sent.
    Unreached(String),
    /// Something may have been sent, and no complete answer came.
    Lost(String),
    /// An answer.
    Answered(Answer),
}

/// An answer, read to its end.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// It was stored under the key, so the key will never have another answer.
    pub(super) replayed: bool,
    /// Stripe's advice whether the same request may have another result.
    pub(super) should_retry: Option<bool>,
    pub(super) retry_after: Option<Duration>,
    /// Stripe's id of the request, for its support.
    pub(super) request_id: Option<String>,
    pub(super) body: Vec<u8>,
}

/// The HTTP client, its base and its key.
pub(super) struct Api {
    http: Client,
    base: Url,
    connect_time: Duration,
}

impl Api {
    pub(super) fn new(
        base: &str,
        secret_key: &SecretString,
        request_time: Duration,
    ) -> Result<Self, StripeSetupError> {
        let base = Url::parse(base).map_err(|_| StripeSetupError::ApiBase)?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(StripeSetupError::ApiBase);
        }
        // A third of the time, so that several failed attempts to connect fit into it.
        let connect_time = CONNECT_TIME.min(request_time / 3);
        // Fails if a provider is installed already, which also works.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .user_agent(concat!("payonce/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(secret_key)?)
            .connect_timeout(connect_time)
            .pool_idle_timeout(POOL_IDLE_TIME)
            .pool_max_idle_per_host(POOL_MAX_IDLE)
            .redirect(Policy::none())
            .build()
            .map_err(StripeSetupError::Client)?;
        Ok(Self {
            http,
            base,
            connect_time,
        })
    }

    /// The longest time until it is known that nothing can be sent.
    pub(super) fn connect_time(&self) -> Duration {
        self.connect_time
    }

    /// Makes one attempt, which takes `time` at most.
    pub(super) async fn send(&self, call: &Call<'_>, time: Duration) -> Attempt {
        let request = match self.request(call, time) {
            Ok(request) => request,
            Err(error) => return Attempt::Unreached(describe(error)),
        };
        match self.http.execute(request).await {
            Ok(response) => read(response).await,
            Err(error) if error.is_connect() => Attempt::Unreached(describe(error)),
            Err(error) => Attempt::Lost(describe(error)),
        }
    }

    fn request(&self, call: &Call<'_>, time: Duration) -> Result<Request, reqwest::Error> {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(call.path);
        }
        let mut request = self.http.request(call.method(), url).timeout(time);
        if let Some(key) = call.key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(account) = call.account {
            request = request.header("Stripe-Account", account);
        }
        if call.is_post {
            return request.form(call.params).build();
        }
        let mut request = request.build()?;
        request
            .url_mut()
            .query_pairs_mut()
            .extend_pairs(call.params);
        Ok(request)
    }
}

fn headers(secret_key: &SecretString) -> Result<HeaderMap, StripeSetupError> {
    let bearer = format!("Bearer {}", secret_key.expose_secret());
    let mut bearer = HeaderValue::try_from(bearer).map_err(|_| StripeSetupError::SecretKey)?;
    bearer.set_sensitive(true);
    let mut headers = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
    headers.insert("Stripe-Version", HeaderValue::from_static(API_VERSION));
    Ok(headers)
}

async fn read(mut response: Response) -> Attempt {
    let mut answer = Answer {
        status: response.status().as_u16(),
        replayed: header(&response, "Idempotent-Replayed") == Some("true"),
        should_retry: header(&response, "Stripe-Should-Retry").and_then(|text| text.parse().ok()),
        // Stripe does not use the other form, a date.
        retry_after: header(&response, RETRY_AFTER.as_str())
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs),
        request_id: header(&response, "Request-Id").map(str::to_owned),
        body: Vec::new(),
    };
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if answer.body.len() + chunk.len() <= MAX_ANSWER_BYTES => {
                answer.body.extend_from_slice(&chunk);
            }
            Ok(Some(_)) => return Attempt::Lost("the answer is too long".to_owned()),
            Ok(None) => return Attempt::Answered(answer),
            Err(error) => return Attempt::Lost(describe(error)),
        }
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// The error and its causes on one line, without the URL, which may contain ids.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(base: &str) -> Result<Api, StripeSetupError> {
        let key = SecretString::from("sk_test_payonce");
        Api::new(base, &key, Duration::from_secs(10))
    }

    #[test]
    fn urls_follow_the_base() {
        let params = [("created[gte]", "1"), ("limit", "100")];
        let call = Call::get(&["payment_intents"], &params);
        let rows = [
            "https://api.stripe.com",
            "https://api.stripe.com/",
            "http://[::1]:8420/stripe/",
        ];
        for base in rows {
            let request = api(base)
                .expect(base)
                .request(&call, Duration::from_secs(1));
            assert_eq!(
                request.expect("a request").url().as_str(),
                format!(
                    "{}/v1/payment_intents?created%5Bgte%5D=1&limit=100",
                    base.trim_end_matches('/')
                )
            );
        }
    }

    #[test]
    fn each_call_has_the_version_of_the_contract() {
        let contract: serde_json::Value =
            serde_json::from_str(include_str!("contract/contract.json")).expect("the contract");
        assert_eq!(contract["apiVersion"], API_VERSION);
        let headers = headers(&SecretString::from("sk_test_payonce")).expect("headers");
        assert_eq!(headers["Stripe-Version"], API_VERSION);
    }

    #[test]
    fn an_account_is_a_header() {
        let api = api("https://api.stripe.com").expect("an API");
        let call = Call::get(&["payment_intents"], &[]);
        let header = |call: Call<'_>| {
            let request = api
                .request(&call, Duration::from_secs(1))
                .expect("a request");
            request.headers().get("Stripe-Account").cloned()
        };
        assert_eq!(
            header(call.on(Some("acct_1"))),
            Some(HeaderValue::from_static("acct_1"))
        );
        assert_eq!(header(call), None);
    }

    #[test]
    fn an_id_stays_one_segment() {
        let call = Call::post(&["payment_intents", "pi_1/../x?y", "capture"], "k", &[]);
        let api = api("https://api.stripe.com").expect("an API");
        let request = api
            .request(&call, Duration::from_secs(1))
            .expect("a request");
        let path = request.url().path();
        assert_eq!(path, "/v1/payment_intents/pi_1%2F..%2Fx%3Fy/capture");
    }

    #[test]
    fn a_bad_base_or_key_is_told() {
        for base in ["", "api.stripe.com", "ftp://api.stripe.com", "unix:/x"] {
            assert!(
                matches!(api(base), Err(StripeSetupError::ApiBase)),
                "{base}"
            );
        }
        let key = SecretString::from("sk_test_\n");
        let error = Api::new("http://[::1]", &key, Duration::from_secs(1)).err();
        assert!(matches!(error, Some(StripeSetupError::SecretKey)));
    }
}
