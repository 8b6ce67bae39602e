//! Every route in one list.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, HttpResponse, Resource, Responder, ResponseError};

use super::{docs, keys, openapi, operations, payments, refunds};
use crate::problem::{Code, Problem};

/// Adds the service's routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(reads(at("/v1/payments", "GET, POST"), payments::list).post(payments::create))
        .service(reads(at("/v1/payments/{id}", "GET"), payments::get))
        .service(at("/v1/payments/{id}/capture", "POST").post(payments::capture))
        .service(at("/v1/payments/{id}/cancel", "POST").post(payments::cancel))
        .service(
            reads(at("/v1/payments/{id}/refunds", "GET, POST"), refunds::list)
                .post(refunds::create),
        )
        .service(reads(at("/v1/refunds/{id}", "GET"), refunds::get))
        .service(reads(
            at("/v1/idempotency-keys/{operation}/{key}", "GET"),
            keys::get,
        ))
        .service(reads(at("/healthz", "GET"), operations::healthz))
        .service(reads(at("/readyz", "GET"), operations::readyz))
        .service(reads(at("/metrics", "GET"), operations::metrics))
        .service(reads(at("/openapi.json", "GET"), openapi::openapi))
        .service(reads(at("/docs", "GET"), docs::page))
        .service(reads(at("/docs/{asset}", "GET"), docs::asset))
        .service(reads(at("/problems", "GET"), operations::list_problems))
        .service(reads(
            at("/problems/{slug}", "GET"),
            operations::explain_problem,
        ))
        .default_service(web::to(not_found));
}

/// A path, and the methods that its 405 lists (RFC 9110, 15.5.6). A path that allows GET also allows HEAD.
fn at(path: &str, methods: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || async move { method_not_allowed(methods) }))
}

/// Adds a handler for GET and HEAD. The reply to HEAD has no body (RFC 9110, 9.3.2); actix-web drops it.
fn reads<F, Args>(resource: Resource, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
}

fn method_not_allowed(methods: &str) -> HttpResponse {
    let methods = methods.replace("GET", "GET, HEAD");
    let problem = Problem::new(Code::MethodNotAllowed, format!("this path knows {methods}"));
    let mut response = problem.error_response();
    if let Ok(methods) = HeaderValue::try_from(methods) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

async fn not_found() -> HttpResponse {
    Problem::new(Code::NotFound, "there is no such path").error_response()
}
