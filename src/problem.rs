//! All refusals in one table: RFC 9457 problem details, and what a program should do next.

use serde::Serialize;
use serde_json::{Map, Value};
use strum::VariantArray;

use crate::idempotency::StoredResponse;

/// The content type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What a program should do after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum Retry {
    /// Send the same request with the same key, after `Retry-After`.
    SameKey,
    /// Nothing was stored: correct the request; the key is still good.
    FixRequest,
    /// A further attempt is a new payment and needs a new key.
    NewKey,
    /// Do not send it again.
    No,
}

impl Retry {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// The rule in words.
    pub fn rule(self) -> &'static str {
        match self {
            Self::SameKey => {
                "Send the same request with the same key again, after the seconds that Retry-After names."
            }
            Self::FixRequest => {
                "Correct the request. The key was not used up: send the corrected request with it."
            }
            Self::NewKey => {
                "The same key always gets this answer. A further attempt is a new request, with a new key."
            }
            Self::No => "Do not send it again: neither the same key nor a new one helps.",
        }
    }

    /// The value in problems.
    pub fn as_str(self) -> &'static str {
        self.into_str()
    }
}

macro_rules! problems {
    ($($variant:ident: $status:literal, $slug:literal, $retry:ident, $title:literal,
        $happened:literal, $charged:literal, $next:literal;)*) => {
        /// The kinds of refusal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $slug, "`: ", $title, ".")] $variant,)*
        }

        impl Code {
            /// All kinds, in the order of their statuses.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// The name in `code` and at the end of `type`.
            pub fn slug(self) -> &'static str {
                match self { $(Self::$variant => $slug,)* }
            }

            /// What a program should do.
            pub fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }

            /// One line for people.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What happened, in sentences.
            pub fn what_happened(self) -> &'static str {
                match self { $(Self::$variant => $happened,)* }
            }

            /// Whether anything was stored or charged, in sentences.
            pub fn what_was_charged(self) -> &'static str {
                match self { $(Self::$variant => $charged,)* }
            }

            /// What to do, in sentences.
            pub fn what_to_do(self) -> &'static str {
                match self { $(Self::$variant => $next,)* }
            }
        }
    };
}

problems! {
    IdempotencyKeyMissing: 400, "idempotency-key-missing", FixRequest, "The Idempotency-Key header is missing",
        "Every POST needs an Idempotency-Key, so that it can be repeated safely. This one has none.",
        "This request stored and charged nothing.",
        "Choose a key for this payment (a UUID, or your order's number), store it with the order, and send the request with it.";
    IdempotencyKeyInvalid: 400, "idempotency-key-invalid", FixRequest, "The Idempotency-Key header is not valid",
        "A key must be 1 to 255 visible ASCII characters, bare or as a quoted string, in one header.",
        "This request stored and charged nothing.",
        "Send the request with such a key, in one header.";
    MalformedJson: 400, "malformed-json", FixRequest, "The body is not a JSON object",
        "The body could not be read as a JSON object in UTF-8.",
        "This request stored and charged nothing.",
        "Correct the body; the key is still good.";
    Unauthorized: 401, "unauthorized", FixRequest, "The API key is missing or not valid",
        "The request has no API key, or one that is wrong or has been revoked. For security, the reply does not say which.",
        "This request stored and charged nothing. Whether an earlier request with this key did was not checked.",
        "Send Authorization: Bearer with an API key that has not been revoked.";
    PaymentDeclined: 402, "payment-declined", NewKey, "The gateway declined",
        "The gateway declined, which is final: the same key will always get this answer. declineCode has the reason.",
        "This request charged, captured or refunded nothing. The decline is stored.",
        "Ask the customer for another card, and send it as a new payment with a new key.";
    NotFound: 404, "not-found", FixRequest, "Not found",
        "This merchant has no such path or id. The reply for another merchant's payment is the same.",
        "This request stored and charged nothing. Whether an earlier request with this key did was not checked.",
        "Check the path and the id, and whether the API key belongs to the right merchant.";
    MethodNotAllowed: 405, "method-not-allowed", FixRequest, "The path does not know this method",
        "The path exists, but does not allow this method.",
        "This request stored and charged nothing. Whether an earlier request with this key did was not checked.",
        "Use one of the methods in the Allow header.";
    NotAcceptable: 406, "not-acceptable", FixRequest, "The service answers in JSON",
        "The Accept header excludes JSON, which is the only format of the service's answers.",
        "This request stored and charged nothing. Whether an earlier request with this key did was not checked.",
        "Accept application/json and application/problem+json, or omit the Accept header.";
    RequestTimeout: 408, "request-timeout", SameKey, "The body did not arrive in time",
        "The request's body did not arrive in time, and the connection is closed.",
        "This request stored and charged nothing. Whether an earlier request with this key did was not checked.",
        "Send the same request with the same key.";
    IdempotencyKeyInUse: 409, "idempotency-key-in-use", SameKey, "The first request with this key is still in progress",
        "Another request with this key is in progress, and did not finish while this one waited.",
        "Whether the first request charges is not known yet.",
        "Wait for Retry-After and send the same request with the same key: it gets the answer of the first.";
    IdempotencyKeyExpired: 409, "idempotency-key-expired", No, "The key has expired, and was used",
        "The key's record has expired, but the payment or refund that it made is known: resourceId is its id.",
        "This request charged nothing. charged says whether the earlier payment or refund took money.",
        "Read the payment or refund by resourceId. A key never pays twice, not even after its record is gone. Only a further payment that the customer asks for needs a key of its own.";
    PaymentBusy: 409, "payment-busy", SameKey, "Another operation on the payment is in progress",
        "The payment itself, or a capture, cancel or refund of it, is in progress. The next operation depends on its outcome.",
        "This request charged, captured or refunded nothing, and nothing of it is stored.",
        "Wait for Retry-After and send the same request with the same key.";
    PaymentStateConflict: 409, "payment-state-conflict", No, "The payment's state does not allow this",
        "The payment's present state, which is in state, does not allow the request.",
        "This request charged, captured or refunded nothing. The refusal is stored.",
        "Read the payment, and decide by its state.";
    PayloadTooLarge: 413, "payload-too-large", FixRequest, "The body is too large",
        "A body may have at most 64 KiB.",
        "This request stored and charged nothing.",
        "Send a smaller body.";
    UnsupportedMediaType: 415, "unsupported-media-type", FixRequest, "The body must be application/json",
        "The Content-Type is missing, or is not JSON.",
        "This request stored and charged nothing.",
        "Send Content-Type: application/json.";
    AmountTooLarge: 422, "amount-too-large", NewKey, "The amount is more than what is left",
        "remaining is the amount that can still be captured or refunded. The key will always get this answer.",
        "This request captured or refunded nothing. The refusal is stored.",
        "Send a smaller amount with a new key.";
    GatewayRefused: 422, "gateway-refused", FixRequest, "The gateway rejected the request",
        "The gateway does not accept the request's amount, currency or token. param names the field, and gatewayCode is the gateway's code.",
        "Nothing was charged under this key, and nothing is stored.",
        "Correct the request; the key is still good.";
    IdempotencyKeyReused: 422, "idempotency-key-reused", No, "The key was used with another request",
        "changed names the fields that differ from the first request with this key.",
        "This request charged nothing. charged says whether the first request with the key did.",
        "Send exactly the first request. Only a further payment that is intended needs a key of its own.";
    ValidationFailed: 422, "validation-failed", FixRequest, "The request is not valid",
        "errors lists every wrong field.",
        "This request stored and charged nothing.",
        "Correct the request; the key is still good.";
    RateLimited: 429, "rate-limited", SameKey, "Too many requests",
        "This merchant has exceeded its rate limit.",
        "This request stored and charged nothing. Whether an earlier request with this key did was not checked.",
        "Wait for Retry-After and send the same request with the same key.";
    DatabaseUnavailable: 503, "database-unavailable", SameKey, "The database cannot be reached",
        "The service could not reach its database, or the merchant is being moved to another one: detail says which.",
        "This request stored and charged nothing. Whether an earlier request with this key did was not checked.",
        "Wait for Retry-After and send the same request with the same key.";
    GatewayMisconfigured: 503, "gateway-misconfigured", SameKey, "The gateway refuses this service",
        "The gateway refused this service, not the payer: its key, its account or its capabilities. The operator has been informed.",
        "charged says whether anything may have been charged under this key.",
        "Wait for Retry-After and send the same request with the same key: it pays once, as soon as the operator has fixed that.";
    GatewayUnavailable: 503, "gateway-unavailable", SameKey, "The gateway cannot be reached",
        "The gateway could not be reached, and the request certainly did not reach it.",
        "Nothing was charged under this key, and nothing is stored.",
        "Wait for Retry-After and send the same request with the same key.";
    OutcomeUnknown: 503, "outcome-unknown", SameKey, "The outcome is not known yet",
        "The database could not be reached while the outcome of this key was being decided. The gateway may have been called, or may still be called.",
        "The charge may have been made. It will not be made twice.",
        "Wait for Retry-After and send the same request with the same key: it finds the outcome.";
    Overloaded: 503, "overloaded", SameKey, "The service is overloaded",
        "The service's queue of waiting requests is full.",
        "This request stored and charged nothing. Whether an earlier request with this key did was not checked.",
        "Wait for Retry-After and send the same request with the same key.";
    Internal: 500, "internal-error", SameKey, "Internal error",
        "The cause is in the service's log, by X-Request-Id.",
        "Whether anything was charged is not known here. If it was, the charge will be found and not repeated.",
        "Send the same request with the same key. If the error persists, give the operator the X-Request-Id.";
}

impl Code {
    /// Finds a code by its slug.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.slug() == slug)
    }
}

/// Whether a payment under the key took or holds money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum HasCharged {
    /// Yes.
    Yes,
    /// Certainly not.
    No,
    /// It is not known yet.
    Unknown,
}

impl HasCharged {
    /// The value in the API.
    pub fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Its kind.
    pub code: Code,
    /// A description of this occurrence, for people. It never contains a secret or an internal cause.
    pub detail: String,
    /// Further members, which depend on the kind.
    pub members: Map<String, Value>,
    /// Seconds for `Retry-After`.
    pub retry_after_seconds: Option<u64>,
    /// Whether the key has paid; `None` if the request was refused before its key was looked up.
    pub charged: Option<HasCharged>,
}

impl Problem {
    /// A refusal of this kind.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        // A client that should retry needs to know when.
        let retry_after_seconds = (code.retry() == Retry::SameKey).then_some(1);
        Self {
            code,
            detail: detail.into(),
            members: Map::new(),
            retry_after_seconds,
            charged: None,
        }
    }

    /// Sets whether the key has paid.
    #[must_use]
    pub fn charged(mut self, charged: HasCharged) -> Self {
        self.charged = Some(charged);
        self
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a member if there is a value.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The JSON body: RFC 9457's members first.
    pub fn body(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: String,
            title: &'static str,
            status: u16,
            detail: &'a str,
            code: &'static str,
            retry: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            charged: Option<&'static str>,
            #[serde(flatten)]
            members: &'a Map<String, Value>,
        }
        let body = Body {
            r#type: format!("/problems/{}", self.code.slug()),
            title: self.code.title(),
            status: self.code.status(),
            detail: &self.detail,
            code: self.code.slug(),
            retry: self.code.retry().as_str(),
            charged: self.charged.map(HasCharged::as_str),
            members: &self.members,
        };
        // Texts, numbers and JSON values under fixed names have a JSON form.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// The refusal as a response that is stored and replayed.
    pub fn to_stored(&self) -> StoredResponse {
        StoredResponse {
            status: self.code.status(),
            headers: vec![("content-type".to_owned(), CONTENT_TYPE.to_owned())],
            body: self.body().into(),
        }
    }
}
