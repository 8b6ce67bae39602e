//! The layout of all pages for operators: the navigation, the cell, who is signed in, and when the page was made.

use std::fmt::Write;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use maud::{Markup, html};

use super::operator::Operator;
use super::{Console, csrf, html};

/// Interval, in seconds, at which a page reloads itself: long enough to read a line, and short enough to notice an incident.
const RENEWED_EVERY: u32 = 30;

/// The parameter that turns reloading on.
const RENEW: &str = "renew";

/// A page of the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Payments,
    Declines,
    Keys,
    Stuck,
    Merchants,
    Audit,
}

const TABS: [(Tab, &str, &str); 7] = [
    (Tab::Overview, "/console", "Overview"),
    (Tab::Payments, "/console/payments", "Payments"),
    (Tab::Declines, "/console/declines", "Declines"),
    (Tab::Keys, "/console/keys", "Keys"),
    (Tab::Stuck, "/console/stuck", "Stuck work"),
    (Tab::Merchants, "/console/merchants", "Merchants"),
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
    let body = html! {
        p .made { (made(operator)) }
        (body)
    };
    let header = header(console, operator, tab);
    html::reply(status, html::frame(title, &html! {}, &header, &body))
}

/// A page that reloads itself if its reader turns that on. It is off by default, because a reload loses the reader's place, and screen
/// readers start again (WCAG 2.1, 2.2.1).
pub(super) fn renewing_page(
    console: &Console,
    operator: &Operator,
    tab: Tab,
    title: &str,
    body: &Markup,
) -> HttpResponse {
    let is_renewing = parameters(&operator.here).any(|(name, _)| name == RENEW);
    let head = html! {
        @if is_renewing { meta http-equiv="refresh" content=(RENEWED_EVERY); }
    };
    let body = html! {
        p .made {
            (made(operator))
            " · "
            a href=(with_renewal(&operator.here, !is_renewing)) {
                @if is_renewing { "Stop renewing" } @else { "Renew every " (RENEWED_EVERY) " s" }
            }
        }
        (body)
    };
    let header = header(console, operator, Some(tab));
    html::reply(StatusCode::OK, html::frame(title, &head, &header, &body))
}

/// When the page was made, and how to make it again.
fn made(operator: &Operator) -> Markup {
    html! {
        "As of " (html::time(operator.asked_at)) " UTC, by the database's clock · "
        a href=(operator.here) { "Load again" }
    }
}

fn parameters(here: &str) -> form_urlencoded::Parse<'_> {
    let (_, query) = here.split_once('?').unwrap_or((here, ""));
    form_urlencoded::parse(query.as_bytes())
}

/// The address of the same page, with or without reloading.
fn with_renewal(here: &str, is_renewing: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters(here).filter(|(name, _)| name != RENEW));
    if is_renewing {
        query.append_pair(RENEW, &RENEWED_EVERY.to_string());
    }
    let (path, _) = here.split_once('?').unwrap_or((here, ""));
    let mut address = path.to_owned();
    let query = query.finish();
    if !query.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(address, "?{query}");
    }
    address
}

fn header(console: &Console, operator: &Operator, tab: Option<Tab>) -> Markup {
    html! {
        nav aria-label="Console" {
            ul {
                @for (this, path, name) in TABS {
                    li { a href=(path) aria-current=[(tab == Some(this)).then_some("page")] { (name) } }
                }
            }
        }
        form .who method="post" action="/console/sign-out" {
            (csrf::field(console.sessions(), &operator.session))
            @if let Some(cell) = console.cell() { strong { "Cell " (cell) } }
            span { (operator.session.operator) }
            button .quiet type="submit" { "Sign out" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_one_parameter_among_others() {
        for (here, on, off) in [
            ("/console", "/console?renew=30", "/console"),
            ("/console?renew=30", "/console?renew=30", "/console"),
            (
                "/console/stuck?merchant=a%26b",
                "/console/stuck?merchant=a%26b&renew=30",
                "/console/stuck?merchant=a%26b",
            ),
        ] {
            assert_eq!(with_renewal(here, true), on);
            assert_eq!(with_renewal(here, false), off);
        }
    }
}
