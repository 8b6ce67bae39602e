//! One key.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Query};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::super::audit_page::actions_table;
use super::super::error::ConsoleError;
use super::super::html::{self, Cell, facts, or_dash, time, time_or_dash};
use super::super::layout::{self, Tab};
use super::super::links::{self, href};
use super::super::operator::Operator;
use super::super::{Console, audit};
use super::resolve::{outcome_notice, resolve_button};
use super::{KeyView, Named, store};
use crate::mismatches::{KEPT_PER_KEY, Mismatches, NotedMismatch};

#[derive(Deserialize)]
pub(in super::super) struct KeyQuery {
    #[serde(flatten)]
    named: Named,
    /// The operator's action that led here.
    action: Option<Uuid>,
}

pub(in super::super) async fn key_page(
    console: Data<Console>,
    operator: Operator,
    query: Query<KeyQuery>,
) -> Result<HttpResponse, ConsoleError> {
    let scope = query.named.scope().ok_or(ConsoleError::NotFound)?;
    let of_key = scope.clone();
    let (key, mismatches, actions) = console
        .ask(|console| async move {
            let pool = console.pool();
            let key = store::find_key(pool, &of_key).await?;
            let mismatches = Mismatches::of_key(pool, &of_key).await?;
            Ok((key, mismatches, audit::of_key(pool, &of_key).await?))
        })
        .await?;
    let just_done = actions
        .iter()
        .find(|action| Some(action.id) == query.action);
    let body = html! {
        @if let Some(done) = just_done { (outcome_notice(done.outcome.as_deref())) }
        @match &key {
            Some(key) => (record(&console, &operator, key)),
            None => p {
                "There is no record of this key: it was never used, was released because nothing had happened, or is past \
                 its time. What it made is found by it among the "
                a href=(href("/console/payments", &[("merchant", &scope.merchant_id), ("key", scope.key.as_str())])) { "payments" } "."
            },
        }
        (mismatches_table(&mismatches))
        (actions_table("Operators' actions on this key", &actions))
    };
    let status = if key.is_some() {
        StatusCode::OK
    } else {
        StatusCode::NOT_FOUND
    };
    let title = format!("Key {}", scope.key);
    Ok(layout::page_of_status(
        status,
        &console,
        &operator,
        Some(Tab::Keys),
        &title,
        &body,
    ))
}

fn record(console: &Console, operator: &Operator, key: &KeyView) -> Markup {
    let standing = match (key.state.as_str(), key.is_left_behind) {
        ("PROCESSING", true) => " abandoned: its lease has ended",
        ("PROCESSING", false) => " in progress",
        _ => "",
    };
    html! {
        (facts(&[
            ("Merchant", links::merchant("/console/keys", &key.merchant_id)),
            ("Operation", html! { (key.operation) }),
            ("State", html! { (html::state(&key.state)) (standing) }),
            ("Made or changes", match &key.resource_id {
                Some(id) => links::resource(&key.merchant_id, id),
                None => html! { "–" },
            }),
            ("Response status", html! { (or_dash(key.response_status.map(|status| status.to_string()))) }),
            ("Attempts", html! { (key.attempt) }),
            ("Owner (a node's engine)", html! { code { (key.owner) } }),
            ("Lease until", time_or_dash(key.lease_expires_at)),
            ("First used", time(key.created_at)),
            ("Final since", time_or_dash(key.completed_at)),
            ("Expires", time(key.expires_at)),
            ("Fingerprint", html! { code { (key.fingerprint_prefix) } "…" }),
        ]))
        @if key.state == "PROCESSING" { (resolve_button(console, operator, &key.merchant_id, &key.operation, &key.key)) }
    }
}

fn mismatches_table(mismatches: &[NotedMismatch]) -> Markup {
    let rows = mismatches.iter().map(|mismatch| {
        vec![
            Cell::text(time(mismatch.first_seen_at)),
            Cell::text(time(mismatch.last_seen_at)),
            Cell::number(mismatch.refusals),
            Cell::text(html! { code { (mismatch.expected_prefix) } }),
            Cell::text(html! { code { (mismatch.actual_prefix) } }),
            Cell::text(html::foreign(Some(mismatch.changed.join(", ")))),
        ]
    });
    let caption = format!("Mismatches: other requests under this key, the last {KEPT_PER_KEY}");
    let titles = [
        "First seen",
        "Last seen",
        "Times",
        "Expected",
        "Actual",
        "What differs",
    ];
    html::table(&caption, &titles, rows)
}
