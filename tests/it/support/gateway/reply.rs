//! Answers as bytes, and errors in Stripe's shape.

use serde_json::{Map, Value, json};

/// An answer, in the bytes that are sent and, under an idempotency key, stored.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// `{"error": {…}}` and its status. See <https://docs.stripe.com/api/errors>.
#[derive(Debug)]
pub(super) struct ApiError {
    status: u16,
    error: Map<String, Value>,
}

impl ApiError {
    fn new(status: u16, kind: &str, message: impl Into<String>) -> Self {
        let mut error = Map::new();
        error.insert("type".into(), kind.into());
        error.insert("message".into(), message.into().into());
        Self { status, error }
    }

    fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.error.insert(field.into(), value.into());
        self
    }

    /// 400: the request is wrong, or asks for what cannot be.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    pub(super) fn code(self, code: &str) -> Self {
        self.set("code", code)
    }

    pub(super) fn param(self, param: &str) -> Self {
        self.set("param", param)
    }

    pub(super) fn payment_intent(self, intent: Value) -> Self {
        self.set("payment_intent", intent)
    }

    /// 404, for an id in the path.
    pub(super) fn missing_resource(object: &str, id: &str) -> Self {
        let mut error = Self::missing_reference(object, object, id);
        error.status = 404;
        error
    }

    /// 400, for an id in a parameter.
    pub(super) fn missing_reference(param: &str, object: &str, id: &str) -> Self {
        Self::invalid(format!("No such {object}: '{id}'"))
            .code("resource_missing")
            .param(param)
    }

    pub(super) fn unknown_url(method: &str, path: &str) -> Self {
        let mut error = Self::invalid(format!("Unrecognized request URL ({method}: {path})."));
        error.status = 404;
        error
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            401,
            "invalid_request_error",
            "Invalid API Key provided: this gateway takes sk_test_… as a bearer token.",
        )
    }

    /// 400: the version of the API is not the one that this gateway speaks.
    pub(super) fn version(asked: Option<&str>) -> Self {
        let asked = asked.unwrap_or("none");
        Self::invalid(format!("Invalid Stripe API version: {asked}"))
    }

    /// 403: the key may not act for this account.
    pub(super) fn no_account(account: &str) -> Self {
        let message = format!(
            "The provided key 'sk_test_********once' does not have access to account '{account}' (or that account does not \
             exist). Application access may have been revoked."
        );
        let mut error = Self::invalid(message).code("account_invalid");
        error.status = 403;
        error
    }

    /// 402, though it is no card that was refused: the account may not send raw card numbers, which is so by default.
    pub(super) fn raw_cards() -> Self {
        let mut error = Self::invalid(
            "Sending credit card numbers directly to the Stripe API is generally unsafe. We suggest you use test tokens that \
             map to the test card you are using, see https://stripe.com/docs/testing. To enable testing raw card data APIs, \
             see https://support.stripe.com/questions/enabling-access-to-raw-card-data-apis.",
        );
        error.status = 402;
        error
    }

    /// 402: the card was refused.
    pub(super) fn card(code: &str, decline_code: Option<&str>, message: &str) -> Self {
        let error = Self::new(402, "card_error", message).code(code);
        match decline_code {
            Some(decline_code) => error.set("decline_code", decline_code),
            None => error,
        }
    }

    pub(super) fn advice(self, advice: &str, network_advice: &str, network_decline: &str) -> Self {
        self.set("advice_code", advice)
            .set("network_advice_code", network_advice)
            .set("network_decline_code", network_decline)
    }

    pub(super) fn key_reused(message: String) -> Self {
        Self::new(400, "idempotency_error", message)
    }

    pub(super) fn key_in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using this Idempotent Key (that probably means you submitted \
             twice, and the other request is still going through): {key}. Please try again later."
        );
        Self::new(409, "idempotency_error", message).code("idempotency_key_in_use")
    }

    /// 409: two requests are at work on one object, and this one gave up.
    pub(super) fn lock_timeout() -> Self {
        let message = "This object cannot be accessed right now because another API request or Stripe process is currently \
                       accessing it.";
        let mut error = Self::invalid(message).code("lock_timeout");
        error.status = 409;
        error
    }

    pub(super) fn rate_limited() -> Self {
        Self::new(429, "invalid_request_error", "Request rate limit exceeded.").code("rate_limit")
    }

    pub(super) fn internal() -> Self {
        Self::new(
            500,
            "api_error",
            "Something went wrong on the gateway's end.",
        )
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Reply::json(error.status, &json!({ "error": error.error }))
    }
}
