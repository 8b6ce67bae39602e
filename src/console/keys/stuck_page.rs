//! Work that is stuck: what is in `PROCESSING`, oldest first.

use actix_web::HttpResponse;
use actix_web::web::Data;
use maud::{Markup, html};

use super::super::Console;
use super::super::error::ConsoleError;
use super::super::layout::{self, Tab, or_dash, time};
use super::super::session::Operator;
use super::resolve::button;
use super::{KeyView, key_href, store};

/// So many of each kind are shown.
const ROWS: i64 = 100;

pub(in super::super) async fn stuck_page(
    console: Data<Console>,
    operator: Operator,
) -> Result<HttpResponse, ConsoleError> {
    let (counts, left_behind, held) = console
        .ask(|console| async move {
            let pool = console.pool();
            let counts = store::count_unsettled(pool).await?;
            let left_behind = store::list_unsettled(pool, true, ROWS).await?;
            Ok((
                counts,
                left_behind,
                store::list_unsettled(pool, false, ROWS).await?,
            ))
        })
        .await?;
    let body = html! {
        p {
            (counts.processing) " in PROCESSING, " (counts.left_behind) " of them left behind. Recovery goes on with these by \
             itself, with growing pauses; " em { "Resolve now" } " does not wait for it. The oldest " (ROWS) " of each are shown."
        }
        (keys_table("Left behind: nobody holds them", &left_behind, |key| button(&console, &operator, key)))
        (keys_table("Under way: somebody holds them", &held, |_| html! { "–" }))
    };
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Stuck),
        "Stuck work",
        &body,
    ))
}

fn keys_table(caption: &str, keys: &[KeyView], act: impl Fn(&KeyView) -> Markup) -> Markup {
    let rows = keys.iter().map(|key| {
        html! {
            tr {
                th scope="row" { a href=(key_href(&key.merchant_id, &key.operation, &key.key)) { code { (key.key) } } }
                td { (act(key)) }
                td { (key.merchant_id) }
                td { (key.operation) }
                td { (time(key.created_at)) }
                td .number { (key.attempt) }
                td { code { (or_dash(key.resource_id.as_ref())) } }
            }
        }
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
    layout::table(caption, &titles, rows)
}
