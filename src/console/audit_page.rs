//! The audit's page: who, what, when.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::Console;
use super::audit::{self, Entry};
use super::error::ConsoleError;
use super::html::{self, Cell};
use super::layout::{self, Tab};
use super::links::{self, href};
use super::operator::Operator;

/// Maximum number of rows a page.
const ROWS: usize = 50;

#[derive(Deserialize)]
pub(super) struct AuditQuery {
    before: Option<Uuid>,
}

pub(super) async fn page(
    console: Data<Console>,
    operator: Operator,
    query: Query<AuditQuery>,
) -> Result<HttpResponse, ConsoleError> {
    let before = query.before;
    let limit = i64::try_from(ROWS).unwrap_or(i64::MAX) + 1;
    let mut entries = console
        .ask(move |console| async move { audit::list(console.pool(), before, limit).await })
        .await?;
    let more = entries.len() > ROWS;
    entries.truncate(ROWS);
    let last = entries
        .last()
        .filter(|_| more)
        .map(|entry| entry.id.to_string());
    let body = html! {
        p { "Operators' actions in this console, latest first. A row is written before its action is taken." }
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
pub(super) fn actions_table(caption: &str, entries: &[Entry]) -> Markup {
    let rows = entries.iter().map(|entry| {
        vec![
            Cell::text(html::time(entry.occurred_at)),
            Cell::row_name(html::foreign(Some(&entry.operator))),
            Cell::text(what(&entry.action)),
            Cell::text(subject(entry)),
            Cell::text(outcome(entry)),
            Cell::text(&entry.peer),
        ]
    });
    html::table(
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
            (links::merchant("/console/stuck", &entry.merchant_id)) ", " (operation) ", "
            (links::key(&entry.merchant_id, operation, key))
        },
        _ => html! { "–" },
    }
}

fn outcome(entry: &Entry) -> &str {
    match (entry.outcome.as_deref(), entry.action.as_str()) {
        (Some(outcome), _) => outcome,
        (None, "resolve_now") => "not known",
        (None, _) => "–",
    }
}
