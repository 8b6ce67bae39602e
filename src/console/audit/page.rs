//! The audit's page: who, what, when.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::super::error::ConsoleError;
use super::super::layout::{self, Tab, href};
use super::super::session::Operator;
use super::super::{Console, keys};
use super::{Entry, store};

/// So many rows a page.
const ROWS: usize = 50;

#[derive(Deserialize)]
pub(in super::super) struct Asked {
    before: Option<Uuid>,
}

pub(in super::super) async fn page(
    console: Data<Console>,
    operator: Operator,
    asked: Query<Asked>,
) -> Result<HttpResponse, ConsoleError> {
    let before = asked.before;
    let limit = i64::try_from(ROWS).unwrap_or(i64::MAX) + 1;
    let mut entries = console
        .ask(move |console| async move { store::list_entries(console.pool(), before, limit).await })
        .await?;
    let more = entries.len() > ROWS;
    entries.truncate(ROWS);
    let last = entries
        .last()
        .filter(|_| more)
        .map(|entry| entry.id.to_string());
    let body = html! {
        p { "Who did what in this console, latest first. A row is written before what it tells of is done." }
        (actions_table("All actions", &entries))
        @if let Some(last) = last {
            p { a rel="next" href=(href("/console/audit", &[("before", &last)])) { "Older actions" } }
        }
    };
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Audit),
        "Audit",
        &body,
    ))
}

/// Rows of the audit as a table.
pub(in super::super) fn actions_table(caption: &str, entries: &[Entry]) -> Markup {
    let rows = entries.iter().map(|entry| {
        html! {
            tr {
                td { (layout::time(entry.occurred_at)) }
                th scope="row" { (entry.operator) }
                td { (what(&entry.action)) }
                td { (subject(entry)) }
                td { (came_of_it(entry)) }
                td { (entry.peer) }
            }
        }
    });
    layout::table(
        caption,
        &["When", "Who", "What", "Whose key", "Outcome", "From"],
        rows,
    )
}

fn what(action: &str) -> &str {
    match action {
        "sign_in" => "signed in",
        "sign_in_refused" => "was refused: wrong token",
        "sign_out" => "signed out",
        "resolve_now" => "resolve now",
        other => other,
    }
}

fn subject(entry: &Entry) -> Markup {
    match (&entry.operation, &entry.key) {
        (Some(operation), Some(key)) => html! {
            (entry.merchant_id) ", " (operation) ", "
            a href=(keys::key_href(&entry.merchant_id, operation, key)) { code { (key) } }
        },
        _ => html! { "–" },
    }
}

fn came_of_it(entry: &Entry) -> &str {
    match (entry.outcome.as_deref(), entry.action.as_str()) {
        (Some(outcome), _) => outcome,
        (None, "resolve_now") => "not known",
        (None, _) => "–",
    }
}
