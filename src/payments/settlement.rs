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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::payments::fenced_writes::payment;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn decline() -> Decline {
        Decline::new("test", "Test")
    }

    fn captured(minor: i64) -> Payment {
        let mut payment = payment("pay_1");
        payment.state = PaymentState::Success;
        payment.captured_minor = minor;
        payment
    }

    fn refund_of(payment: &Payment, minor: i64) -> Refund {
        Refund {
            merchant_id: payment.merchant_id.clone(),
            id: "ref_1".to_owned(),
            payment_id: payment.id.clone(),
            idempotency_key: "r".to_owned(),
            state: RefundState::Processing,
            amount: payment.in_currency(minor),
            reason: None,
            gateway_refund_id: None,
            failure: None,
            created_at: NOW,
        }
    }

    fn made(progress: RefundProgress) -> Refunded {
        Refunded {
            gateway_refund_id: "re_1".to_owned(),
            progress,
        }
    }

    #[test]
    fn a_charge_takes_or_holds_the_money_or_nothing() {
        for (method, expected) in [
            (CaptureMethod::Automatic, (PaymentState::Success, 100)),
            (CaptureMethod::Manual, (PaymentState::Authorized, 0)),
        ] {
            let mut payment = payment("pay_1");
            payment.capture_method = method;
            let done = Charged {
                transaction_id: "ch_1".to_owned(),
                card: None,
            };
            let outcome = charged(&mut payment, Ok(done), NOW);
            assert_eq!((payment.state, payment.captured_minor), expected);
            assert!(matches!(outcome, Outcome::Completed(_)));
        }
        let mut payment = payment("pay_1");
        let outcome = charged(&mut payment, Err(decline()), NOW);
        assert_eq!(
            (payment.state, payment.captured_minor),
            (PaymentState::Failed, 0)
        );
        assert!(matches!(outcome, Outcome::Failed(_)));
    }

    #[test]
    fn a_capture_takes_its_amount_and_is_over() {
        let mut payment = payment("pay_1");
        payment.state = PaymentState::Authorized;
        for (result, expected) in [
            (Err(decline()), (PaymentState::Authorized, 0)),
            (Ok(()), (PaymentState::Success, 40)),
        ] {
            payment.pending = Some(Pending::Capture { minor: 40 });
            payment.pending_attempt = Some("cap_1".to_owned());
            adjusted(&mut payment, result, NOW);
            assert_eq!((payment.state, payment.captured_minor), expected);
            assert_eq!((payment.pending, &payment.pending_attempt), (None, &None));
        }
    }

    #[test]
    fn a_refund_moves_its_reservation_to_what_was_given_back() {
        for (result, refunded_minor, state) in [
            (
                Ok(made(RefundProgress::Succeeded)),
                30,
                PaymentState::PartiallyRefunded,
            ),
            (
                Ok(made(RefundProgress::Pending)),
                30,
                PaymentState::PartiallyRefunded,
            ),
            (Err(decline()), 0, PaymentState::Success),
        ] {
            let mut payment = captured(100);
            payment.refunding_minor = 30 + 7;
            let mut refund = refund_of(&payment, 30);
            refunded(&mut payment, &mut refund, result, NOW);
            assert_eq!(payment.refunding_minor, 7, "another's is left");
            assert_eq!(
                (payment.refunded_minor, payment.state),
                (refunded_minor, state)
            );
        }
    }

    #[test]
    fn a_pending_refund_that_fails_gives_its_amount_back() {
        for (result, refunded_minor, state) in [
            (Ok(()), 100, PaymentState::Refunded),
            (Err(decline()), 0, PaymentState::Success),
        ] {
            let mut payment = captured(100);
            let mut refund = refund_of(&payment, 100);
            payment.refunding_minor = 100;
            let pending = Ok(made(RefundProgress::Pending));
            refunded(&mut payment, &mut refund, pending, NOW);
            assert_eq!(payment.state, PaymentState::Refunded);
            refund_ended(&mut payment, &mut refund, result, NOW);
            assert_eq!(
                (payment.refunded_minor, payment.state),
                (refunded_minor, state)
            );
        }
    }

    #[test]
    fn a_change_is_not_older_than_what_it_changed() {
        let mut payment = payment("pay_1");
        payment.updated_at = NOW + Duration::from_secs(1);
        charged(&mut payment, Err(decline()), NOW);
        assert_eq!(payment.updated_at, NOW + Duration::from_secs(1));
    }
}
