//! A reply in actix-web's own type.

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use payonce_http::Reply;

/// Converts a reply into actix-web's type, for answers that were made without the middleware, such as those of two phases. A reply that
/// cannot be sent becomes a 500, for example if a route's own form of a refusal has an invalid header.
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
