//! What the pages are made of, from the program itself.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Path;

use super::pages;
use crate::problem::{Code, Problem};

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
        _ => return Err(Problem::new(Code::NotFound, "there is no such file")),
    };
    Ok(HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "max-age=3600"))
        .body(body))
}
