//! Pages for people: one layout, one style sheet, nothing from other hosts.

use actix_web::HttpResponse;
use actix_web::http::header::{self, ContentType};
use maud::{DOCTYPE, Markup, html};

use super::samples;
use crate::problem::Code;

/// Dark or light like the reader's system, in one column that fits a phone's screen.
pub(super) const STYLE: &str = include_str!("payonce.css");

/// The icon of a browser tab.
pub(super) const ICON: &str = include_str!("payonce.svg");

/// Styles and images come from this host only. There are no scripts and no forms, and the pages cannot be framed.
const PLAIN_PAGE: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                          frame-ancestors 'none'";

/// A page with the headers of every page.
pub(super) fn response(page: Markup, security_policy: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((header::CONTENT_SECURITY_POLICY, security_policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .body(page.into_string())
}

/// The head of every page.
pub(super) fn head(title: &str, more_styles: &[&str]) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " – payonce" }
            link rel="stylesheet" href="/docs/payonce.css";
            @for style in more_styles { link rel="stylesheet" href=(style); }
            link rel="icon" type="image/svg+xml" href="/docs/payonce.svg";
        }
    }
}

/// The links between the pages.
pub(super) fn navigation() -> Markup {
    html! {
        header {
            nav aria-label="payonce" {
                a href="/docs" { "API" } " " a href="/problems" { "Problems" } " " a href="/openapi.json" { "openapi.json" }
            }
        }
    }
}

fn page(title: &str, content: &Markup) -> HttpResponse {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(title, &[]))
            body {
                (navigation())
                main class="text" { (content) }
            }
        }
    };
    response(page, PLAIN_PAGE)
}

/// All problems, in a table.
pub(super) fn problems() -> HttpResponse {
    page(
        "Problems",
        &html! {
            h1 { "Problems" }
            p {
                "Every refusal is an RFC 9457 problem. " code { "code" } " says which one it is, and " code { "retry" }
                " what a program should do."
            }
            table {
                thead { tr { th scope="col" { "Status" } th scope="col" { "Problem" } th scope="col" { "Retry" } } }
                tbody {
                    @for code in Code::ALL {
                        tr {
                            td { (code.status()) }
                            td { a href={ "/problems/" (code.slug()) } { (code.slug()) } br; (code.title()) }
                            td { code { (code.retry().as_str()) } }
                        }
                    }
                }
            }
        },
    )
}

/// One problem: what happened, whether anything was charged, what to do, and an example.
pub(super) fn problem(code: Code) -> HttpResponse {
    page(
        code.title(),
        &html! {
            h1 { (code.title()) }
            p class="facts" {
                span { "Status " strong { (code.status()) } }
                span { "Code " code { (code.slug()) } }
                span { "Retry " code { (code.retry().as_str()) } }
            }
            h2 { "What happened" }
            p { (code.what_happened()) }
            h2 { "Was anything charged?" }
            p { (code.what_was_charged()) }
            h2 { "What to do" }
            p { (code.what_to_do()) }
            p { strong { "For a program: " } (code.retry().rule()) }
            h2 { "An example" }
            pre tabindex="0" aria-label="An example body" { code { (example(code)) } }
        },
    )
}

fn example(code: Code) -> String {
    serde_json::to_string_pretty(&samples::problem(code)).unwrap_or_default()
}
