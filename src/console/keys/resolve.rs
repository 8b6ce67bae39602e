//! *Resolve now*: the recovery of one key, on an operator's request.
//!
//! It uses the recovery worker's code, with all its rules: a claim that another process holds is not taken, the gateway is called
//! under the payment's name, and a call of long ago is not repeated.

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

/// Resolves one key, after the action has been recorded in the audit, and shows the key with the outcome.
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
    // The action has been taken, so a failure to record its outcome is not an error: the audit shows an action without outcome.
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
            "Resolved. The outcome is final, or the claim was released because nothing had happened.",
        )
    } else if is(Recovered::Unknown) {
        (
            "wait",
            "Still unknown: the gateway did not return the outcome. Nothing is lost; recovery keeps asking.",
        )
    } else if is(Recovered::TakenByOthers) {
        (
            "wait",
            "Nothing to do: another process holds the claim, or it was settled before.",
        )
    } else if is(Recovered::Misconfigured) {
        (
            "bad",
            "This process cannot continue it: its gateway is not set up here, or refuses us.",
        )
    } else if is(Recovered::Failed) {
        (
            "bad",
            "It failed. The cause is in the service's log; recovery keeps trying.",
        )
    } else {
        (
            "wait",
            "In progress, or its outcome could not be written. Load the page again.",
        )
    };
    html! { p class={ "notice " (tone) } role="status" { (sentence) } }
}
