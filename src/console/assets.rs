//! The style sheet and the icon. They contain no data, so browsers may cache them for a while.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;

/// The console's one style sheet.
pub(super) async fn style_sheet() -> HttpResponse {
    asset(
        "text/css; charset=utf-8",
        include_str!("assets/console.css"),
    )
}

/// The icon, which browsers request by themselves.
pub(super) async fn icon() -> HttpResponse {
    asset("image/svg+xml", include_str!("assets/icon.svg"))
}

fn asset(content_type: &str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CACHE_CONTROL, "private, max-age=300"))
        .body(content)
}
