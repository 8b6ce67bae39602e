//! What all pages have in common.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, ContentType};
use chrono::{DateTime, SecondsFormat, Utc};
use maud::{DOCTYPE, Markup, html};

use super::session::Operator;
use super::{Console, csrf};

/// A page of the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Payments,
    Keys,
    Stuck,
    Audit,
}

const TABS: [(Tab, &str, &str); 5] = [
    (Tab::Overview, "/console", "Overview"),
    (Tab::Payments, "/console/payments", "Payments"),
    (Tab::Keys, "/console/keys", "Keys"),
    (Tab::Stuck, "/console/stuck", "Stuck work"),
    (Tab::Audit, "/console/audit", "Audit"),
];

/// A page for an operator.
pub(super) fn page(
    console: &Console,
    operator: &Operator,
    tab: Option<Tab>,
    title: &str,
    body: &Markup,
) -> HttpResponse {
    page_of_status(StatusCode::OK, console, operator, tab, title, body)
}

/// The same, with a status of its own.
pub(super) fn page_of_status(
    status: StatusCode,
    console: &Console,
    operator: &Operator,
    tab: Option<Tab>,
    title: &str,
    body: &Markup,
) -> HttpResponse {
    let header = html! {
        nav aria-label="Console" {
            ul {
                @for (this, path, name) in TABS {
                    li { a href=(path) aria-current=[(tab == Some(this)).then_some("page")] { (name) } }
                }
            }
        }
        form .who method="post" action="/console/sign-out" {
            (csrf::field(console.sessions(), operator))
            span { (operator.session.operator) }
            button .quiet type="submit" { "Sign out" }
        }
    };
    reply(status, frame(title, &header, body))
}

/// A page for somebody who may be nobody.
pub(super) fn bare_page(title: &str, body: &Markup) -> Markup {
    frame(title, &html! {}, body)
}

fn frame(title: &str, header: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " – payonce console" }
                link rel="stylesheet" href="/console/assets/console.css";
                link rel="icon" type="image/svg+xml" href="/console/assets/icon.svg";
            }
            body {
                a .skip href="#main" { "Skip to the content" }
                header { p .brand { a href="/console" { "payonce" } } (header) }
                main #main tabindex="-1" { h1 { (title) } (body) }
                footer { p { "payonce " (env!("CARGO_PKG_VERSION")) ". All times are UTC." } }
            }
        }
    }
}

/// A reply with a page.
pub(super) fn reply(status: StatusCode, page: Markup) -> HttpResponse {
    HttpResponse::build(status)
        .content_type(ContentType::html())
        .body(page.into_string())
}

/// The style sheet. It says nothing of anybody, so a browser may keep it for a while.
pub(super) async fn style_sheet() -> HttpResponse {
    asset(
        "text/css; charset=utf-8",
        include_str!("assets/console.css"),
    )
}

/// The icon that a browser asks for anyway.
pub(super) async fn icon() -> HttpResponse {
    asset("image/svg+xml", include_str!("assets/icon.svg"))
}

fn asset(content_type: &str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CACHE_CONTROL, "private, max-age=300"))
        .body(content)
}

/// An address with its parameters, encoded.
pub(super) fn href(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    format!("{path}?{}", query.finish())
}

/// A moment, for people and programs.
pub(super) fn time(moment: DateTime<Utc>) -> Markup {
    html! {
        time datetime=(moment.to_rfc3339_opts(SecondsFormat::Micros, true)) {
            (moment.format("%Y-%m-%d %H:%M:%S%.3f"))
        }
    }
}

/// A moment that may not have come.
pub(super) fn time_or_dash(moment: Option<DateTime<Utc>>) -> Markup {
    match moment {
        Some(moment) => time(moment),
        None => html! { "–" },
    }
}

/// A text that may be missing.
pub(super) fn or_dash(text: Option<impl AsRef<str>>) -> String {
    text.map_or_else(|| "–".to_owned(), |text| text.as_ref().to_owned())
}

/// A state, in a colour and in letters.
pub(super) fn state(name: &str) -> Markup {
    let tone = match name {
        "PROCESSING" => "wait",
        "FAILED" => "bad",
        "CANCELED" | "REFUNDED" | "PARTIALLY_REFUNDED" => "flat",
        _ => "good",
    };
    html! { span class={ "state " (tone) } { (name) } }
}

/// A table that scrolls by itself where the screen is narrow, by keyboard too.
pub(super) fn table(caption: &str, titles: &[&str], rows: impl Iterator<Item = Markup>) -> Markup {
    let mut rows = rows.peekable();
    html! {
        div .scroll role="region" tabindex="0" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for title in titles { th scope="col" { (title) } } } }
                tbody {
                    @if rows.peek().is_none() {
                        tr { td .none colspan=(titles.len()) { "None." } }
                    }
                    @for row in rows { (row) }
                }
            }
        }
    }
}

/// Names and what they stand for.
pub(super) fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! {
        dl .facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } }
    }
}
