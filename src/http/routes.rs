//! Every route in one list.

use actix_web::error::QueryPayloadError;
use actix_web::http::header;
use actix_web::web::{self, QueryConfig, ServiceConfig};
use actix_web::{HttpResponse, Resource, ResponseError};

use super::{docs, keys, operations, payments, refunds};
use crate::input::{FieldError, InputError};
use crate::problem::{Code, Problem};

/// Adds the service's routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .app_data(QueryConfig::default().error_handler(|error, _| unreadable_query(&error).into()))
        .service(
            at("/v1/payments", "GET, POST")
                .get(payments::list)
                .post(payments::create),
        )
        .service(at("/v1/payments/{id}", "GET").get(payments::get))
        .service(at("/v1/payments/{id}/capture", "POST").post(payments::capture))
        .service(at("/v1/payments/{id}/cancel", "POST").post(payments::cancel))
        .service(
            at("/v1/payments/{id}/refunds", "GET, POST")
                .get(refunds::list)
                .post(refunds::create),
        )
        .service(at("/v1/refunds/{id}", "GET").get(refunds::get))
        .service(at("/v1/idempotency-keys/{operation}/{key}", "GET").get(keys::get))
        .service(at("/healthz", "GET").get(operations::healthz))
        .service(at("/readyz", "GET").get(operations::readyz))
        .service(at("/metrics", "GET").get(operations::metrics))
        .service(at("/openapi.json", "GET").get(operations::openapi))
        .service(at("/docs", "GET").get(docs::page))
        .service(at("/docs/{asset}", "GET").get(docs::asset))
        .service(at("/problems", "GET").get(operations::list_problems))
        .service(at("/problems/{slug}", "GET").get(operations::explain_problem))
        .default_service(web::to(not_found));
}

/// A path, and what its 405 says of the methods that it knows (RFC 9110, 15.5.6).
fn at(path: &str, methods: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || async move { method_not_allowed(methods) }))
}

fn method_not_allowed(methods: &'static str) -> HttpResponse {
    let problem = Problem::new(Code::MethodNotAllowed, format!("this path knows {methods}"));
    let mut response = problem.error_response();
    response
        .headers_mut()
        .insert(header::ALLOW, header::HeaderValue::from_static(methods));
    response
}

/// A parameter that came twice: one of a wrong value is told by its handler.
fn unreadable_query(error: &QueryPayloadError) -> Problem {
    let detail = error.to_string();
    let error = FieldError {
        field: "query".to_owned(),
        message: detail.clone(),
    };
    Problem {
        detail,
        ..InputError::Invalid(vec![error]).into()
    }
}

async fn not_found() -> HttpResponse {
    Problem::new(Code::NotFound, "there is no such path").error_response()
}
