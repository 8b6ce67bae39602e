//! The `Idempotency-Key` header, as an extractor that any actix-web service can use.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest};

use crate::idempotency::IdempotencyKey;
use crate::problem::{Code, Problem};

/// The header's name, in lower case.
pub const KEY_HEADER: &str = "idempotency-key";

/// The request's idempotency key. Extracting it refuses a request without one, with two, or with a bad one, by a 400 in
/// RFC 9457 form.
///
/// ```
/// use actix_web::HttpResponse;
/// use payonce::http::KeyHeader;
///
/// async fn create_order(KeyHeader(key): KeyHeader) -> HttpResponse {
///     HttpResponse::Ok().body(key.to_string())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHeader(pub IdempotencyKey);

impl KeyHeader {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut values = headers.get_all(KEY_HEADER);
        let Some(value) = values.next() else {
            return Err(Problem::new(
                Code::IdempotencyKeyMissing,
                Code::IdempotencyKeyMissing.title(),
            ));
        };
        let invalid = |detail: String| Problem::new(Code::IdempotencyKeyInvalid, detail);
        if values.next().is_some() {
            return Err(invalid(
                "the Idempotency-Key header was sent more than once".to_owned(),
            ));
        }
        IdempotencyKey::from_header(value.as_bytes())
            .map(Self)
            .map_err(|error| invalid(error.to_string()))
    }
}

impl FromRequest for KeyHeader {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::read(request.headers()))
    }
}
