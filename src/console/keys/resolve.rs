//! *Resolve now*: the recovery of one key, at an operator's word.
//!
//! It is the recovery worker's own code, so all its rules hold: a claim that somebody holds is not taken, the gateway is asked
//! under the payment's name, and a call of long ago is not made again.

use actix_web::HttpResponse;
use actix_web::http::header::LOCATION;
use actix_web::web::{Data, Form};
use maud::{Markup, html};
use serde::Deserialize;
use uuid::Uuid;

use super::super::error::ConsoleError;
use super::super::links::href;
use super::super::operator::Operator;
use super::super::{Console, audit, csrf};
use super::Named;
use crate::idempotency::ScopedKey;
use crate::recovery::{Recovered, Recovery};

#[derive(Deserialize)]
pub(in super::super) struct Sent {
    csrf: Option<String>,
    #[serde(flatten)]
    named: Named,
}

/// Resolves one key, once that is in the audit table, and shows the key with the outcome.
pub(in super::super) async fn resolve_now(
    console: Data<Console>,
    operator: Operator,
    sent: Form<Sent>,
) -> Result<HttpResponse, ConsoleError> {
    csrf::check(console.sessions(), &operator.session, sent.csrf.as_deref())?;
    let scope = sent.named.scope().ok_or(ConsoleError::BadForm)?;
    let acted_on = scope.clone();
    let action = console
        .ask(|console| async move { note_and_resolve(&console, &operator, &acted_on).await })
        .await?;
    let shown = [
        ("merchant", scope.merchant_id.as_str()),
        ("operation", &scope.operation),
        ("key", scope.key.as_str()),
        ("action", &action.to_string()),
    ];
    Ok(HttpResponse::SeeOther()
        .insert_header((LOCATION, href("/console/key", &shown)))
        .finish())
}

async fn note_and_resolve(
    console: &Console,
    operator: &Operator,
    scope: &ScopedKey,
) -> sqlx::Result<Uuid> {
    let action = audit::note_resolve(console.pool(), operator.actor(), scope).await?;
    let recovery = Recovery::new(console.payments().clone());
    let outcome = recovery.recover(scope).await.label();
    tracing::info!(key = %scope, outcome, operator = operator.session.operator, "resolved by an operator");
    // It is done, whether this can be written or not: then the audit shows an action without its outcome.
    if let Err(error) = audit::add_outcome(console.pool(), scope, action, outcome).await {
        tracing::error!(key = %scope, outcome, %error, "the outcome of an operator's action is not in the audit");
    }
    Ok(action)
}

/// The button for a key in `PROCESSING`.
pub(in super::super) fn resolve_button(
    console: &Console,
    operator: &Operator,
    merchant_id: &str,
    operation: &str,
    key: &str,
) -> Markup {
    let label = format!("Resolve now: {key} of {merchant_id}");
    html! {
        form method="post" action="/console/stuck/resolve" {
            (csrf::field(console.sessions(), &operator.session))
            input type="hidden" name="merchant" value=(merchant_id);
            input type="hidden" name="operation" value=(operation);
            input type="hidden" name="key" value=(key);
            button type="submit" aria-label=(label) { "Resolve now" }
        }
    }
}

/// The outcome of an action, in a sentence.
pub(super) fn outcome_notice(outcome: Option<&str>) -> Markup {
    let is = |recovered: Recovered| outcome == Some(recovered.label());
    let (tone, sentence) = if is(Recovered::Resolved) {
        (
            "good",
            "Resolved. The outcome is final, or the claim was given back because nothing had happened.",
        )
    } else if is(Recovered::Unknown) {
        (
            "wait",
            "Still unknown: the gateway did not say. Nothing is lost; recovery goes on asking.",
        )
    } else if is(Recovered::TakenByOthers) {
        (
            "wait",
            "Nothing was to be done: somebody holds the claim, or it was settled before.",
        )
    } else if is(Recovered::Failed) {
        (
            "bad",
            "It failed. The cause is in the service's log; recovery goes on trying.",
        )
    } else {
        (
            "wait",
            "Under way, or its outcome could not be written. Load the page again.",
        )
    };
    html! { p class={ "notice " (tone) } role="status" { (sentence) } }
}
