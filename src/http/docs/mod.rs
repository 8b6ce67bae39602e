//! `/docs`: the OpenAPI document in a browser, where requests can be tried. Swagger UI is part of the program (`utoipa-swagger-ui`,
//! vendored at build time), so the page needs no other host.

use std::borrow::Cow;
use std::sync::Arc;

use actix_web::http::header;
use actix_web::web::{Bytes, Path};
use actix_web::{HttpResponse, HttpResponseBuilder};
use maud::{DOCTYPE, html};
use utoipa_swagger_ui::Config;

use super::pages;
use crate::problem::{Code, Problem};

/// Scripts, styles and requests are limited to this host. Swagger UI sets styles on elements, and its own style sheet uses `data:`
/// images.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const START: &str = include_str!("start.js");

/// The document in a browser
#[utoipa::path(
    get, path = "/docs", operation_id = "docs", tag = "service",
    responses((status = 200, description = "A page for people", body = String, content_type = "text/html")),
)]
pub(super) async fn page() -> HttpResponse {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (pages::head("API", &["/docs/swagger-ui.css"]))
            body class="wide" {
                (pages::navigation())
                main id="document" { noscript { p { "This page needs JavaScript. The document is at " a href="/openapi.json" { "/openapi.json" } "." } } }
                script src="/docs/swagger-ui-bundle.js" {}
                script src="/docs/start.js" {}
            }
        }
    };
    pages::response(page, POLICY)
}

/// A file that a page refers to
#[utoipa::path(
    get, path = "/docs/{asset}", operation_id = "docs_asset", tag = "service",
    params(("asset" = String, Path, example = "payonce.css", description = "The file's name")),
    responses((status = 200, description = "A style sheet, a script or a picture", body = String, content_type = "text/css")),
)]
pub(super) async fn asset(name: Path<String>) -> Result<HttpResponse, Problem> {
    let (content_type, body) = match name.as_str() {
        "payonce.css" => ("text/css; charset=utf-8", pages::STYLE),
        "payonce.svg" => ("image/svg+xml", pages::ICON),
        "start.js" => ("text/javascript; charset=utf-8", START),
        "swagger-ui.css" | "swagger-ui-bundle.js" => return swagger_ui(&name),
        _ => return Err(not_found()),
    };
    Ok(file(content_type).body(body))
}

fn swagger_ui(name: &str) -> Result<HttpResponse, Problem> {
    // These files are served unchanged. The configuration is in `start.js`.
    let found = utoipa_swagger_ui::serve(name, Arc::new(Config::default()));
    let found = found.ok().flatten().ok_or_else(not_found)?;
    let mut response = file(&found.content_type);
    if found.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response.body(match found.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    }))
}

fn file(content_type: &str) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .content_type(content_type)
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "max-age=3600"));
    response
}

fn not_found() -> Problem {
    Problem::new(Code::NotFound, "there is no such file")
}
