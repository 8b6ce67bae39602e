//! The headers of replies.

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::{ObjectBuilder, Ref, RefOr, Response, Type};

use crate::http::samples;
use crate::problem::{Code, Retry};

/// An extension of a response: headers that come only with some of its problems.
const ONLY_WITH: &str = "x-only-with";

const REQUEST_ID: &str = "X-Request-Id";
const KEY: &str = "Idempotency-Key";
const REPLAYED: &str = "Idempotent-Replayed";
const EXPIRES: &str = "Idempotency-Key-Expires";
const LOCATION: &str = "Location";
const RETRY_AFTER: &str = "Retry-After";
const AUTHENTICATE: &str = "WWW-Authenticate";
const ALLOW: &str = "Allow";
const SECURITY_POLICY: &str = "Content-Security-Policy";

/// All of them, described once.
pub(super) fn components() -> [(String, RefOr<Header>); 9] {
    let text = |name: &str, description: &str, example: Value| {
        let schema = ObjectBuilder::new()
            .schema_type(if example.is_u64() {
                Type::Integer
            } else {
                Type::String
            })
            .examples([example])
            .build();
        let header = HeaderBuilder::new()
            .schema(Some(schema))
            .description(Some(description));
        (name.to_owned(), header.build().into())
    };
    [
        text(
            REQUEST_ID,
            "The request's id in the logs: the client's own, or a generated one.",
            json!("checkout-7f3a"),
        ),
        text(KEY, "The key, as it was sent.", json!(samples::KEY)),
        text(
            REPLAYED,
            "`true`: this is the stored answer of an earlier or concurrent request. `false`: this request executed.",
            json!("false"),
        ),
        text(
            EXPIRES,
            "The HTTP date when the key expires.",
            json!("Mon, 02 Mar 2026 12:00:00 GMT"),
        ),
        text(
            LOCATION,
            "The path of the payment or refund.",
            json!(format!("/v1/payments/{}", samples::PAYMENT_ID)),
        ),
        text(
            RETRY_AFTER,
            "The number of seconds after which the same request with the same key should be sent again.",
            json!(1),
        ),
        text(AUTHENTICATE, "The authentication scheme.", json!("Bearer")),
        text(
            ALLOW,
            "The methods that the path allows.",
            json!("GET, POST"),
        ),
        text(
            SECURITY_POLICY,
            "The page loads nothing from other hosts.",
            json!("default-src 'self'"),
        ),
    ]
}

/// The headers of a successful reply.
pub(super) fn of_success(response: &mut Response, status: &str, is_post: bool, is_page: bool) {
    add(response, REQUEST_ID);
    if is_post {
        for name in [KEY, REPLAYED, EXPIRES] {
            add(response, name);
        }
    }
    if matches!(status, "201" | "202") {
        add(response, LOCATION);
    }
    if status == "202" || status == "503" {
        add(response, RETRY_AFTER);
    }
    if is_page {
        add(response, SECURITY_POLICY);
    }
}

/// The headers of a refusal with one of these codes.
pub(super) fn of_problems(response: &mut Response, codes: &[Code], is_post: bool) {
    add(response, REQUEST_ID);
    if is_post {
        add(response, KEY);
    }
    let mut only_with = serde_json::Map::new();
    for name in [REPLAYED, EXPIRES, RETRY_AFTER, AUTHENTICATE, ALLOW] {
        let with: Vec<&str> = codes
            .iter()
            .filter(|code| carries(**code, name))
            .map(|code| code.slug())
            .collect();
        if with.is_empty() {
            continue;
        }
        if with.len() < codes.len() {
            only_with.insert(name.to_owned(), json!(with));
        }
        add(response, name);
    }
    // A missing key cannot be echoed.
    if is_post && codes.contains(&Code::IdempotencyKeyMissing) {
        let others = codes
            .iter()
            .filter(|code| **code != Code::IdempotencyKeyMissing);
        only_with.insert(KEY.to_owned(), others.map(|code| code.slug()).collect());
    }
    if !only_with.is_empty() {
        response.extensions = Some(Extensions::from_iter([(
            ONLY_WITH,
            Value::Object(only_with),
        )]));
    }
}

fn carries(code: Code, header: &str) -> bool {
    match header {
        REPLAYED | EXPIRES => matches!(
            code,
            Code::PaymentDeclined | Code::PaymentStateConflict | Code::AmountTooLarge
        ),
        RETRY_AFTER => code.retry() == Retry::SameKey,
        AUTHENTICATE => code == Code::Unauthorized,
        ALLOW => code == Code::MethodNotAllowed,
        _ => false,
    }
}

fn add(response: &mut Response, name: &str) {
    let header = Ref::new(format!("#/components/headers/{name}"));
    response.headers.insert(name.to_owned(), RefOr::Ref(header));
}
