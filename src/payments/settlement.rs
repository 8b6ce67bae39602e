//! What a gateway's answer makes of a payment or a refund. Pure: no database, no gateway, no clock of its own.

use chrono::{DateTime, Utc};

use super::answers;
use super::{CaptureMethod, Payment, PaymentState, Pending, Refund, RefundState};
use crate::gateway::{Charged, Decline, RefundProgress, Refunded};
use crate::idempotency::Outcome;

/// The charge was made, or declined.
pub(super) fn charged(
    payment: &mut Payment,
    result: Result<Charged, Decline>,
    now: DateTime<Utc>,
) -> Outcome {
    touch(payment, now);
    match result {
        Ok(Charged {
            transaction_id,
            card,
        }) => {
            // Empty: it could not be stored.
            payment.gateway_transaction_id = Some(transaction_id).filter(|id| !id.is_empty());
            if payment.card.is_none() {
                payment.card = card;
            }
            (payment.state, payment.captured_minor) = match payment.capture_method {
                CaptureMethod::Automatic => (PaymentState::Success, payment.amount.minor()),
                CaptureMethod::Manual => (PaymentState::Authorized, 0),
            };
            answers::created(payment)
        }
        Err(decline) => {
            payment.state = PaymentState::Failed;
            let outcome = answers::declined(&payment.id, &decline);
            payment.failure = Some(decline);
            outcome
        }
    }
}

/// A capture or cancel under way was done, or declined: then the payment is as it was before.
pub(super) fn adjusted(
    payment: &mut Payment,
    result: Result<(), Decline>,
    now: DateTime<Utc>,
) -> Outcome {
    touch(payment, now);
    let pending = payment.end_pending();
    match (result, pending) {
        (Ok(()), Some(Pending::Capture { minor })) => {
            payment.state = PaymentState::Success;
            payment.captured_minor = minor;
            answers::changed(payment)
        }
        (Ok(()), Some(Pending::Cancel)) => {
            payment.state = PaymentState::Canceled;
            answers::changed(payment)
        }
        // Nothing was under way: the answer is the payment as it is.
        (Ok(()), None) => answers::changed(payment),
        (Err(decline), _) => answers::declined(&payment.id, &decline),
    }
}

/// The gateway let go of what was held, by itself: nothing of what was asked can be done any more.
pub(super) fn lapsed(payment: &mut Payment, reason: Option<String>, now: DateTime<Utc>) -> Outcome {
    touch(payment, now);
    let pending = payment.end_pending();
    payment.state = PaymentState::Canceled;
    payment.cancellation_reason = Some(reason.unwrap_or_else(|| "released_by_gateway".to_owned()));
    match pending {
        // What was asked for is so.
        Some(Pending::Cancel) => answers::changed(payment),
        _ => answers::state_conflict(payment, "captured"),
    }
}

/// A refund was made, or declined. Either way its reservation ends. One that is still pending counts as given back: it is what
/// the gateway will do unless it says otherwise.
pub(super) fn refunded(
    payment: &mut Payment,
    refund: &mut Refund,
    result: Result<Refunded, Decline>,
    now: DateTime<Utc>,
) -> Outcome {
    touch(payment, now);
    payment.refunding_minor -= refund.amount.minor();
    match result {
        Ok(Refunded {
            gateway_refund_id,
            progress,
        }) => {
            payment.refunded_minor += refund.amount.minor();
            payment.state = payment.state_by_refunds();
            refund.state = match progress {
                RefundProgress::Succeeded => RefundState::Success,
                RefundProgress::Pending => RefundState::Pending,
            };
            refund.gateway_refund_id = Some(gateway_refund_id).filter(|id| !id.is_empty());
            answers::refunded(refund)
        }
        Err(decline) => {
            refund.state = RefundState::Failed;
            let outcome = answers::declined(&payment.id, &decline);
            refund.failure = Some(decline);
            outcome
        }
    }
}

/// A pending refund has ended. A failed one gives its amount back to what is left of the payment.
pub(super) fn refund_ended(
    payment: &mut Payment,
    refund: &mut Refund,
    result: Result<(), Decline>,
    now: DateTime<Utc>,
) {
    match result {
        Ok(()) => refund.state = RefundState::Success,
        Err(decline) => {
            touch(payment, now);
            payment.refunded_minor -= refund.amount.minor();
            payment.state = payment.state_by_refunds();
            refund.state = RefundState::Failed;
            refund.failure = Some(decline);
        }
    }
}

/// A change is never shown as older than what it changed, whatever the node's clock says.
fn touch(payment: &mut Payment, now: DateTime<Utc>) {
    payment.updated_at = payment.updated_at.max(now);
}
