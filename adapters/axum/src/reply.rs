//! A reply in axum's own type.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use payonce_http::Reply;

/// Converts a reply into axum's type, for answers that were made without the layer, such as those of two phases. A reply that cannot be
/// sent becomes a 500, for example if a route's own form of a refusal has an invalid header.
///
/// ```
/// use payonce_axum::{Refusal, respond};
///
/// let response = respond(Refusal::OwnerUnknown.problem());
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// ```
pub fn respond(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    let Ok(status) = StatusCode::from_u16(reply.status) else {
        return unsendable();
    };
    *response.status_mut() = status;
    for (name, value) in reply.headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
        else {
            return unsendable();
        };
        response.headers_mut().append(name, value);
    }
    response
}

fn unsendable() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
