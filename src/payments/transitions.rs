//! The transitions of a payment or a refund by the gateway's answer. Pure functions: no database, no gateway; [`now`] is
//! given to them.

use chrono::{DateTime, SubsecRound, Utc};

use super::answers;
use super::{Payment, PaymentState, Pending, Refund, RefundState};
use crate::gateway::{CaptureMethod, Charged, Decline, RefundProgress, Refunded};
use crate::idempotency::Outcome;
use crate::money::{Amount, ArithmeticError};

/// Applies a charge that was made or declined.
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
            // An id that cannot be stored is empty here.
            payment.gateway_transaction_id = Some(transaction_id).filter(|id| !id.is_empty());
            if payment.card.is_none() {
                payment.card = card;
            }
            let nothing = Amount::zero(payment.amount.currency());
            (payment.state, payment.captured) = match payment.capture_method {
                CaptureMethod::Automatic => (PaymentState::Success, payment.amount),
                CaptureMethod::Manual => (PaymentState::Authorized, nothing),
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

/// Applies a pending capture or cancel that was done or declined. A decline leaves the payment as it was before.
pub(super) fn pending_ended(
    payment: &mut Payment,
    result: Result<(), Decline>,
    now: DateTime<Utc>,
) -> Outcome {
    touch(payment, now);
    let pending = payment.end_pending();
    match (result, pending) {
        (Ok(()), Some(Pending::Capture { amount })) => {
            payment.state = PaymentState::Success;
            payment.captured = amount;
            answers::changed(payment)
        }
        (Ok(()), Some(Pending::Cancel)) => {
            payment.state = PaymentState::Canceled;
            answers::changed(payment)
        }
        // Nothing was pending: the answer is the payment as it is.
        (Ok(()), None) => answers::changed(payment),
        (Err(decline), _) => answers::declined(&payment.id, &decline),
    }
}

/// Applies that the gateway released the hold by itself.
pub(super) fn hold_lapsed(
    payment: &mut Payment,
    reason: Option<String>,
    now: DateTime<Utc>,
) -> Outcome {
    touch(payment, now);
    let pending = payment.end_pending();
    payment.state = PaymentState::Canceled;
    payment.cancellation_reason = Some(reason.unwrap_or_else(|| "released_by_gateway".to_owned()));
    match pending {
        // The request asked for exactly that.
        Some(Pending::Cancel) => answers::changed(payment),
        _ => answers::state_conflict(payment, "captured"),
    }
}

/// Applies a refund that was made or declined. Either way its reservation ends. A pending refund counts as refunded, because the
/// gateway will pay it unless it says otherwise.
pub(super) fn refunded(
    payment: &mut Payment,
    refund: &mut Refund,
    result: Result<Refunded, Decline>,
    now: DateTime<Utc>,
) -> Result<Outcome, ArithmeticError> {
    touch(payment, now);
    payment.refunding = payment.refunding.checked_sub(refund.amount)?;
    Ok(match result {
        Ok(Refunded {
            gateway_refund_id,
            progress,
        }) => {
            payment.refunded = payment.refunded.checked_add(refund.amount)?;
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
    })
}

/// Applies the end of a pending refund. The amount of a failed one can be refunded again.
pub(super) fn refund_ended(
    payment: &mut Payment,
    refund: &mut Refund,
    result: Result<(), Decline>,
    now: DateTime<Utc>,
) -> Result<(), ArithmeticError> {
    match result {
        Ok(()) => refund.state = RefundState::Success,
        Err(decline) => {
            touch(payment, now);
            payment.refunded = payment.refunded.checked_sub(refund.amount)?;
            payment.state = payment.state_by_refunds();
            refund.state = RefundState::Failed;
            refund.failure = Some(decline);
        }
    }
    Ok(())
}

/// The time of a transition, in microseconds, the database's resolution: a payment is the same before and after it is stored.
pub(super) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// Sets the time of a change. It never goes back, even if the node's clock does.
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
        payment.captured = payment.in_currency(minor);
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
            assert_eq!((payment.state, payment.captured.minor()), expected);
            assert!(matches!(outcome, Outcome::Completed(_)));
        }
        let mut payment = payment("pay_1");
        let outcome = charged(&mut payment, Err(decline()), NOW);
        assert_eq!(
            (payment.state, payment.captured.minor()),
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
            payment.pending = Some(Pending::Capture {
                amount: payment.in_currency(40),
            });
            payment.pending_attempt = Some("cap_1".to_owned());
            pending_ended(&mut payment, result, NOW);
            assert_eq!((payment.state, payment.captured.minor()), expected);
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
            payment.refunding = payment.in_currency(30 + 7);
            let mut refund = refund_of(&payment, 30);
            refunded(&mut payment, &mut refund, result, NOW).expect("amounts");
            assert_eq!(payment.refunding.minor(), 7, "another's is left");
            assert_eq!(
                (payment.refunded.minor(), payment.state),
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
            payment.refunding = payment.in_currency(100);
            let pending = Ok(made(RefundProgress::Pending));
            refunded(&mut payment, &mut refund, pending, NOW).expect("amounts");
            assert_eq!(payment.state, PaymentState::Refunded);
            refund_ended(&mut payment, &mut refund, result, NOW).expect("amounts");
            assert_eq!(
                (payment.refunded.minor(), payment.state),
                (refunded_minor, state)
            );
        }
    }

    #[test]
    fn amounts_that_do_not_add_up_are_an_error() {
        let mut payment = captured(100);
        let mut refund = refund_of(&payment, 30);
        let unreserved = refunded(&mut payment, &mut refund, Err(decline()), NOW);
        assert_eq!(unreserved, Err(ArithmeticError::BelowZero));
        let failed = refund_ended(&mut payment, &mut refund, Err(decline()), NOW);
        assert_eq!(failed, Err(ArithmeticError::BelowZero));
    }

    #[test]
    fn a_change_is_not_older_than_what_it_changed() {
        let mut payment = payment("pay_1");
        payment.updated_at = NOW + Duration::from_secs(1);
        charged(&mut payment, Err(decline()), NOW);
        assert_eq!(payment.updated_at, NOW + Duration::from_secs(1));
    }
}
