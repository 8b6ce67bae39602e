//! Looking a key up.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::Console;
use super::super::error::ConsoleError;
use super::super::layout::{self, Tab, or_dash, time};
use super::super::session::Operator;
use super::{KeyView, key_href, store};
use crate::idempotency::IdempotencyKey;

/// So many are shown: a key of this name has at most four operations a merchant.
const ROWS: i64 = 100;

#[derive(Deserialize)]
pub(in super::super) struct Asked {
    merchant: Option<String>,
    key: Option<String>,
}

pub(in super::super) async fn search_page(
    console: Data<Console>,
    operator: Operator,
    asked: Query<Asked>,
) -> Result<HttpResponse, ConsoleError> {
    let given = |text: &Option<String>| {
        let text = text.as_deref().unwrap_or_default().trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    let (merchant, key) = (given(&asked.merchant), given(&asked.key));
    let found = match &key {
        None => None,
        Some(key) => Some(find(&console, merchant.clone(), key).await?),
    };
    let body = html! {
        (form(merchant.as_deref(), key.as_deref()))
        @if let Some(found) = found { (found_table(&found)) }
        @else {
            p { "A key is looked up by its whole name. What is in PROCESSING is under " a href="/console/stuck" { "Stuck work" } "." }
        }
    };
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Keys),
        "Idempotency keys",
        &body,
    ))
}

/// A merchant's name with a NUL, or what is no key, finds nothing.
async fn find(
    console: &Console,
    merchant: Option<String>,
    key: &str,
) -> Result<Vec<KeyView>, ConsoleError> {
    let is_findable = merchant.as_ref().is_none_or(|name| !name.contains('\0'));
    let Some(key) = IdempotencyKey::new(key).ok().filter(|_| is_findable) else {
        return Ok(Vec::new());
    };
    console
        .ask(|console| async move {
            store::find_keys(console.pool(), merchant.as_deref(), key.as_str(), ROWS).await
        })
        .await
}

fn form(merchant: Option<&str>, key: Option<&str>) -> Markup {
    html! {
        form .card.search method="get" action="/console/keys" role="search" {
            div {
                label for="key" { "Idempotency key" }
                input #key name="key" value=[key] required maxlength="255" autocomplete="off" spellcheck="false";
            }
            div {
                label for="merchant" { "Merchant (any, if empty)" }
                input #merchant name="merchant" value=[merchant] maxlength="64" autocomplete="off" spellcheck="false";
            }
            div { button type="submit" { "Look up" } }
        }
    }
}

fn found_table(found: &[KeyView]) -> Markup {
    let rows = found.iter().map(|key| {
        html! {
            tr {
                th scope="row" { a href=(key_href(&key.merchant_id, &key.operation, &key.key)) { code { (key.key) } } }
                td { (key.merchant_id) }
                td { (key.operation) }
                td { (layout::state(&key.state)) }
                td .number { (key.attempt) }
                td { (or_dash(key.response_status.map(|status| status.to_string()))) }
                td { (time(key.created_at)) }
            }
        }
    });
    let titles = [
        "Key",
        "Merchant",
        "Operation",
        "State",
        "Attempts",
        "Status",
        "First used",
    ];
    layout::table("Keys of this name", &titles, rows)
}
