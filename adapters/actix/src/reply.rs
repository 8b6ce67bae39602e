//! A reply in actix-web's own type.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use payonce_http::Reply;

/// A reply as actix-web sends it: for what was made without a middleware, as an answer of two phases. What cannot be sent, as a header
/// of a route's own refusals may be, is answered by 500.
///
/// ```
/// use payonce_actix::{Refusal, respond};
///
/// let response = respond(Refusal::OwnerUnknown.problem());
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.headers().get("content-type").expect("one"), "application/problem+json");
/// ```
pub fn respond(reply: Reply) -> HttpResponse {
    let Ok(status) = StatusCode::from_u16(reply.status) else {
        return HttpResponse::InternalServerError().finish();
    };
    let mut response = HttpResponse::with_body(status, BoxBody::new(reply.body));
    for (name, value) in reply.headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
        else {
            return HttpResponse::InternalServerError().finish();
        };
        response.headers_mut().append(name, value);
    }
    response
}
