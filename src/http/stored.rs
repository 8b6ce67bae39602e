//! Turns a stored answer into a response. The bytes that were stored are the bytes that are sent.

use std::time::SystemTime;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use chrono::{DateTime, Utc};

use crate::idempotency::{Answer, StoredResponse};

/// Turns a stored answer into a response with its status, headers and body.
pub fn stored_response(stored: &StoredResponse) -> HttpResponse {
    // An answer is checked before it is stored, so an invalid one is a bug here.
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for (name, value) in &stored.headers {
        response.append_header((name.as_str(), value.as_str()));
    }
    response.body(stored.body.clone())
}

/// Turns an engine's answer into a response that also says whether it is a replay, and when the key expires.
pub fn answer_response(answer: Answer) -> HttpResponse {
    let Answer {
        response,
        replayed,
        expires_at,
    } = answer;
    let mut response = stored_response(&response);
    mark(&mut response, replayed, expires_at);
    response
}

pub(super) fn mark(response: &mut HttpResponse, replayed: bool, expires_at: DateTime<Utc>) {
    let headers = response.headers_mut();
    let replayed = HeaderValue::from_static(if replayed { "true" } else { "false" });
    headers.insert(HeaderName::from_static("idempotent-replayed"), replayed);
    let date = httpdate::fmt_http_date(SystemTime::from(expires_at));
    if let Ok(date) = HeaderValue::try_from(date) {
        headers.insert(HeaderName::from_static("idempotency-key-expires"), date);
    }
}
