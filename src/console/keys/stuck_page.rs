//! Stuck work: keys in `PROCESSING`, oldest first.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::Console;
use super::super::error::ConsoleError;
use super::super::html::{self, Cell, time};
use super::super::layout::{self, Tab};
use super::super::links;
use super::super::operator::Operator;
use super::resolve::resolve_button;
use super::{KeyView, Unsettled, store};

/// Maximum number of rows of each kind.
const ROWS: i64 = 100;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct Asked {
    merchant: String,
}

pub(in super::super) async fn stuck_page(
    console: Data<Console>,
    operator: Operator,
    asked: Query<Asked>,
) -> Result<HttpResponse, ConsoleError> {
    let merchant = asked.merchant.trim().replace('\0', "\u{fffd}");
    let of = (!merchant.is_empty()).then(|| merchant.clone());
    let (counts, left_behind, held) = console
        .ask(|console| async move {
            let (pool, of) = (console.pool(), of.as_deref());
            let counts = store::count_unsettled(pool, of).await?;
            let left_behind = store::list_unsettled(pool, of, Some(true), ROWS).await?;
            let held = store::list_unsettled(pool, of, Some(false), ROWS).await?;
            Ok((counts, left_behind, held))
        })
        .await?;
    let resolve = |key: &KeyView| {
        resolve_button(
            &console,
            &operator,
            &key.merchant_id,
            &key.operation,
            &key.key,
        )
    };
    let body = html! {
        (introduction(&merchant, &counts))
        (keys_table("Abandoned: no process holds them", &left_behind, resolve))
        (keys_table("In progress: a process holds them", &held, |_| html! { "–" }))
    };
    Ok(layout::renewing_page(
        &console,
        &operator,
        Tab::Stuck,
        "Stuck work",
        &body,
    ))
}

fn introduction(merchant: &str, counts: &Unsettled) -> Markup {
    html! {
        p {
            (counts.processing) " in PROCESSING, " (counts.left_behind) " of them abandoned"
            @if !merchant.is_empty() { ", of merchant " (merchant) " (" a href="/console/stuck" { "show all" } ")" }
            ". Recovery resolves these by itself, with growing pauses; " em { "Resolve now" } " does not wait for it. The \
             oldest " (ROWS) " of each are shown."
        }
    }
}

fn keys_table(caption: &str, keys: &[KeyView], act: impl Fn(&KeyView) -> Markup) -> Markup {
    let rows = keys.iter().map(|key| {
        vec![
            Cell::row_name(links::key(&key.merchant_id, &key.operation, &key.key)),
            Cell::text(act(key)),
            Cell::text(links::merchant("/console/stuck", &key.merchant_id)),
            Cell::text(&key.operation),
            Cell::text(time(key.created_at)),
            Cell::number(key.attempt),
            Cell::text(match &key.resource_id {
                Some(id) => links::resource(&key.merchant_id, id),
                None => html! { "–" },
            }),
        ]
    });
    let titles = [
        "Key",
        "Do",
        "Merchant",
        "Operation",
        "Since",
        "Attempts",
        "Makes or changes",
    ];
    html::table(caption, &titles, rows)
}
