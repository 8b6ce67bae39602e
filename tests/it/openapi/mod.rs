//! The document at `/openapi.json`: it is complete and current, and describes what the service does.

mod agreement;
mod document;
mod exchanges;
mod limits;
mod refusals;

use std::collections::BTreeSet;

use payonce::problem::Code;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use self::document::Document;
use crate::support::service::Service;

#[test]
fn the_checked_in_document_is_fresh() {
    let checked_in = include_str!("../../../openapi.json");
    assert!(
        checked_in == payonce::http::openapi_json(),
        "openapi.json is stale: run `make openapi` and commit it"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn it_is_served_as_it_is_checked_in_and_without_an_api_key(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let mut nobody = service.merchant("acme").await;
    nobody.api_key = "nothing".to_owned();
    let answer = nobody.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.bytes, payonce::http::openapi_json().as_bytes());
    assert_eq!(answer.json()["openapi"], "3.1.0");
}

/// `GET /v1/payments`, … as `http/routes.rs` has them.
fn routes() -> BTreeSet<String> {
    let source = include_str!("../../../src/http/routes.rs");
    let (_, list) = source
        .split_once("pub fn routes")
        .expect("the list of routes");
    let (list, _) = list.split_once("\n}").expect("its end");
    let routes: BTreeSet<String> = list
        .split("at(\"")
        .skip(1)
        .flat_map(|route| {
            let mut texts = route.split('"');
            let (path, methods) = (
                texts.next().expect("a path"),
                texts.nth(1).expect("methods"),
            );
            methods
                .split(", ")
                .map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert!(routes.contains("POST /v1/payments"), "{routes:?}");
    routes
}

#[test]
fn each_route_is_documented_and_each_documented_call_is_routed() {
    let document = Document::strict();
    let calls = document.calls();
    let documented: BTreeSet<String> = calls
        .iter()
        .map(|call| format!("{} {}", call.method.to_uppercase(), call.path))
        .collect();
    assert_eq!(documented.len(), calls.len());
    assert_eq!(documented, routes());
    let ids: BTreeSet<&str> = calls.iter().map(|call| call.id()).collect();
    assert_eq!(ids.len(), calls.len(), "two calls have one id");
}

#[test]
fn every_problem_of_the_table_is_in_it() {
    let document = Document::strict();
    let slugs: BTreeSet<&str> = Code::ALL.iter().map(|code| code.slug()).collect();
    let examples = document.0["components"]["examples"]
        .as_object()
        .expect("examples");
    assert_eq!(
        examples.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        slugs
    );

    let unknown_method = &document.0["components"]["responses"]["MethodNotAllowed"];
    let mut met: BTreeSet<&str> = BTreeSet::new();
    let mut replies = vec![document.reply(405, unknown_method)];
    let calls = document.calls();
    replies.extend(calls.iter().flat_map(|call| document.replies(call)));
    for reply in replies
        .iter()
        .filter(|reply| reply.content_type == "application/problem+json")
    {
        for (slug, example) in &reply.examples {
            let code = Code::from_slug(slug).expect("a slug of the table");
            assert_eq!(code.status(), reply.status, "{slug}");
            assert_eq!(example["code"], *slug);
            met.insert(slug);
        }
    }
    assert_eq!(met, slugs, "each can be met at some call");
}

#[test]
fn each_example_fits_its_schema() {
    let document = Document::strict();
    let mut checked = 0;
    let mut check = |context: String, schema: &Value, example: &Value| {
        let faults = document.faults(schema, example);
        // A request that the service refuses may have a shape that is refused.
        if !context.ends_with("validation-failed") {
            assert!(faults.is_empty(), "{context}: {faults:?}");
        }
        checked += 1;
    };
    for call in document.calls() {
        let schema = &call.operation["requestBody"]["content"]["application/json"]["schema"];
        for (name, example) in document.request_examples(&call) {
            check(format!("{} {name}", call.id()), schema, example);
        }
        for parameter in document.parameters(&call) {
            let context = format!("{} {}", call.id(), parameter["name"]);
            check(context, &parameter["schema"], &parameter["example"]);
        }
        for reply in document.replies(&call) {
            for (name, example) in &reply.examples {
                check(
                    format!("{} {} {name} reply", call.id(), reply.status),
                    reply.schema,
                    example,
                );
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

/// A description and an example for each field, parameter and header.
#[test]
fn everything_is_explained() {
    let document = Document::strict();
    let mut lacking = Vec::new();
    let components = &document.0["components"];
    for (name, schema) in components["schemas"].as_object().expect("schemas") {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let is_made_of_fields = property.to_string().contains("$ref");
            let examples = [&property["examples"], &property["items"]["examples"]];
            let has_example = examples.iter().any(|examples| examples.is_array());
            let is_explained = has_example && property["description"].is_string();
            if !(is_made_of_fields || is_explained) {
                lacking.push(format!("{name}.{field}"));
            }
        }
    }
    for (name, header) in components["headers"].as_object().expect("headers") {
        if !header["description"].is_string() || header["schema"]["examples"] == json!(null) {
            lacking.push(name.clone());
        }
    }
    for call in document.calls() {
        if !call.operation["summary"].is_string() {
            lacking.push(call.id().to_owned());
        }
        for parameter in document.parameters(&call) {
            if !parameter["description"].is_string() || parameter["example"].is_null() {
                lacking.push(format!("{} {}", call.id(), parameter["name"]));
            }
        }
    }
    assert!(lacking.is_empty(), "{lacking:?}");
}
