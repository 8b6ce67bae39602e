//! The OpenAPI 3.1 document at `/openapi.json`, generated from the code: calls are described at their handlers, shapes where they
//! are serialized, problems in their table.
//!
//! * [`openapi_json`]: the document as it is served and checked in (`make openapi`).
//! * `headers`: the headers of replies; `problems`: the refusals of each call.
//! * `exchanges`: the examples, made of `http::samples`. The shapes of requests are in `http::request_shapes`.

mod exchanges;
mod headers;
mod problems;

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use actix_web::web::Bytes;
use serde_json::Value;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::openapi::{Components, Ref, RefOr, Schema};
use utoipa::{IntoParams, Modify, OpenApi};

use crate::http::request_shapes::{self, AnyHeaders, KeyedHeaders};
use crate::http::{docs, keys, operations, payments, refunds, samples};
use crate::problem::Code;

const ABOUT: &str = "Payments whose clients may repeat any request and are charged once.

Every `POST` needs an `Idempotency-Key`. The first request with a key executes; every later one with the same key gets the \
same answer, byte for byte, with `Idempotent-Replayed: true`. When an answer is lost, or a reply says `retry: same-key`, \
send the same request with the same key again.

JSON, camelCase; times are RFC 3339 in UTC; amounts are in the currency's major unit (`99.99` in USD, `100` in JPY) and are \
never read through a float. Refusals are RFC 9457 problems.

The simulated gateway's cards: `4242424242424242` succeeds, `4000000000000002` is declined, `4000000000009995` has no funds.";

#[derive(OpenApi)]
#[openapi(
    info(title = "payonce", description = ABOUT, license(name = "MIT OR Apache-2.0")),
    paths(
        payments::create, payments::list, payments::get, payments::capture, payments::cancel,
        refunds::create, refunds::list, refunds::get,
        keys::get,
        operations::healthz, operations::readyz, operations::metrics, openapi,
        docs::page, docs::asset, operations::list_problems, operations::explain_problem,
    ),
    components(schemas(problems::Problem)),
    tags(
        (name = "payments", description = "Payments: each is charged once."),
        (name = "refunds", description = "Refunds: each is paid once."),
        (name = "idempotency-keys", description = "The records of idempotency keys."),
        (name = "service", description = "For operators, and this document. No API key is needed."),
    ),
    modifiers(&Shared, &Complete),
)]
struct Document;

/// The document, as it is served and checked in: JSON, indented, with a newline at its end.
pub fn openapi_json() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| {
        // Serializing texts, numbers and JSON values under fixed names cannot fail.
        Document::openapi().to_pretty_json().unwrap_or_default() + "\n"
    });
    &JSON
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "service",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")),
)]
pub(super) async fn openapi() -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body(Bytes::from_static(openapi_json().as_bytes()))
}

/// Adds the parts that calls share: the security scheme, headers, examples of problems, and the reply to an unknown method.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        document.servers = Some(vec![Server::new("/")]);
        let components = document.components.get_or_insert_with(Components::new);
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some(
            "The merchant's API key, which `payonce merchants create` shows once: `Authorization: Bearer sk_…`."
                .to_owned(),
        );
        components.add_security_scheme("apiKey", SecurityScheme::Http(bearer));
        components.headers.extend(headers::components());
        components.examples.extend(problems::examples());
        let unknown_method = problems::response(&[Code::MethodNotAllowed], false);
        components
            .responses
            .insert("MethodNotAllowed".to_owned(), unknown_method.into());
        let in_header = || Some(ParameterIn::Header);
        let keyed = KeyedHeaders::into_params(in_header);
        for parameter in keyed.into_iter().chain(AnyHeaders::into_params(in_header)) {
            components
                .parameters
                .insert(parameter.name.clone(), parameter.into());
        }
        for (name, schema) in &mut components.schemas {
            if let (true, RefOr::T(Schema::Object(object))) =
                (request_shapes::is_strict(name), schema)
            {
                object.additional_properties =
                    Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
    }
}

/// Completes the description of every call: headers, problems, examples.
struct Complete;

impl Modify for Complete {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for (_, item) in &mut document.paths.paths {
            for (operation, is_post) in [(&mut item.get, false), (&mut item.post, true)] {
                if let Some(operation) = operation {
                    complete(operation, is_post);
                }
            }
        }
    }
}

/// Removes `null` from the schema of an optional body: it may be absent, but not `null`.
fn forbid_null(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else {
        return;
    };
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(RefOr::T(Schema::OneOf(either))) = &content.schema
            && let Some(shape @ RefOr::Ref(_)) = either.items.first()
        {
            content.schema = Some(shape.clone());
        }
    }
}

fn complete(operation: &mut Operation, is_post: bool) {
    forbid_null(operation);
    let id = operation.operation_id.clone().unwrap_or_default();
    let names: &[&str] = if is_post {
        &["Idempotency-Key", "Prefer", "X-Request-Id"]
    } else {
        &["X-Request-Id"]
    };
    let shared = names
        .iter()
        .map(|name| RefOr::Ref(Ref::new(format!("#/components/parameters/{name}"))));
    operation.parameters.get_or_insert_default().extend(shared);

    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            let is_page = response.content.contains_key("text/html");
            headers::of_success(response, status, is_post, is_page);
        }
    }
    problems::document(&mut operation.responses, &problems::of(&id), is_post);
    if is_post {
        let (summary, reply) = (
            "The gateway's answer is not known yet",
            samples::processing(&id),
        );
        add_reply(operation, 202, "processing", example(summary, reply));
    }
    for exchange in exchanges::exchanges() {
        if exchange.operation != id {
            continue;
        }
        if let Some(request) = exchange.request {
            add_request(operation, exchange.name, example(exchange.summary, request));
        }
        let reply = example(exchange.summary, exchange.reply);
        add_reply(operation, exchange.status, exchange.name, reply);
    }
}

fn example(summary: &str, value: Value) -> RefOr<Example> {
    ExampleBuilder::new()
        .summary(summary)
        .value(Some(value))
        .build()
        .into()
}

fn add_request(operation: &mut Operation, name: &str, example: RefOr<Example>) {
    let Some(RefOr::T(body)) = &mut operation.request_body else {
        return;
    };
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content {
            content.examples.insert(name.to_owned(), example.clone());
        }
    }
}

/// Adds an example, unless the reply has one with that name already.
fn add_reply(operation: &mut Operation, status: u16, name: &str, example: RefOr<Example>) {
    let Some(RefOr::T(response)) = operation.responses.responses.get_mut(&status.to_string())
    else {
        return;
    };
    for content in response.content.values_mut() {
        if let RefOr::T(content) = content {
            content
                .examples
                .entry(name.to_owned())
                .or_insert_with(|| example.clone());
        }
    }
}
