//! The response that is stored for an outcome. Pure functions, so that the first request, a retry and recovery store the same
//! bytes for the same outcome.

use bytes::Bytes;
use serde::Serialize;

use super::{Payment, Refund};
use crate::gateway::Decline;
use crate::idempotency::{Outcome, StoredResponse};
use crate::money::Amount;
use crate::problem::{Code, HasCharged, Problem};

/// 201: a payment was made.
pub(super) fn created(payment: &Payment) -> Outcome {
    Outcome::Completed(json(201, payment).with_header("location", payment_location(&payment.id)))
}

/// 200: a payment was captured or canceled.
pub(super) fn changed(payment: &Payment) -> Outcome {
    Outcome::Completed(json(200, payment))
}

/// 201: a refund was made.
pub(super) fn refunded(refund: &Refund) -> Outcome {
    Outcome::Completed(json(201, refund).with_header("location", refund_location(&refund.id)))
}

/// 402: the gateway declined, which is final.
pub(crate) fn declined(payment_id: &str, decline: &Decline) -> Outcome {
    let problem = Problem::new(Code::PaymentDeclined, &decline.message)
        .charged(HasCharged::No)
        .with("declineCode", decline.code.as_str())
        .with("paymentId", payment_id)
        .with_some("adviceCode", decline.advice.advice_code.as_deref());
    Outcome::Failed(problem.to_stored())
}

/// 409: the payment's state does not allow the operation.
pub(crate) fn state_conflict(payment: &Payment, asked: &str) -> Outcome {
    let state = payment.shown_state().as_str();
    let detail = format!("a payment in {state} cannot be {asked}");
    let problem = Problem::new(Code::PaymentStateConflict, detail)
        .charged(HasCharged::No)
        .with("paymentId", payment.id.as_str())
        .with("state", state);
    Outcome::Failed(problem.to_stored())
}

/// 422: the amount is more than is left.
pub(crate) fn amount_too_large(payment: &Payment, asked: Amount, remaining: Amount) -> Outcome {
    let currency = remaining.currency().code();
    let detail =
        format!("{asked} {currency} is more than the {remaining} {currency} that are left");
    let problem = Problem::new(Code::AmountTooLarge, detail)
        .charged(HasCharged::No)
        .with("paymentId", payment.id.as_str())
        .with("remaining", remaining.to_string());
    Outcome::Failed(problem.to_stored())
}

/// 202: the gateway's answer is not known yet. Never stored.
pub(super) fn processing(resource: &impl Serialize, location: String) -> StoredResponse {
    json(202, resource)
        .with_header("location", location)
        .with_header("retry-after", "1")
}

pub(super) fn payment_location(id: &str) -> String {
    format!("/v1/payments/{id}")
}

pub(super) fn refund_location(id: &str) -> String {
    format!("/v1/refunds/{id}")
}

fn json(status: u16, body: &impl Serialize) -> StoredResponse {
    StoredResponse::json(status, body).unwrap_or_else(|error| {
        // Payments and refunds consist of texts and numbers under fixed names, so they always have a JSON form.
        tracing::error!(%error, "an answer has no JSON form");
        StoredResponse {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    })
}
