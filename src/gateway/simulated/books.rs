//! The books of this process's simulated gateway, so that it can refuse what contradicts them.
//!
//! A charge is named by its payment's id alone, and may have been made before this process started, or by another node, which has
//! books of its own. So a request about an unknown charge is accepted, and only a contradiction is refused: an id that is not the
//! payment's charge, a capture of more than was held or of another amount than was captured, a cancel of what was captured, a
//! refund of more than there is.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

use std::collections::{HashMap, VecDeque};

use super::strip;
use crate::gateway::{Capture, Decline, GatewayError, GatewayRefund, Refusal};
use crate::money::Amount;

/// Maximum number of charges in the books. The oldest are forgotten first.
const MAX_CHARGES: usize = 20_000;

/// Maximum number of a charge's refunds that are known by their id. Of further refunds only the sum is known.
const MAX_REFUNDS: usize = 1_000;

/// What is known about a charge. A field is `None` while nothing is known.
#[derive(Default)]
struct Entry {
    held: Option<i64>,
    captured: Option<i64>,
    is_canceled: bool,
    refunds: HashMap<String, i64>,
    refunded: i64,
    refunds_fail: bool,
}

#[derive(Default)]
pub(super) struct Books {
    charges: HashMap<String, Entry>,
    oldest_first: VecDeque<String>,
}

impl Books {
    /// Makes a charge. The same payment's charge is made once.
    pub(super) fn charge(&mut self, id: &str, minor: i64, is_captured: bool, refunds_fail: bool) {
        let entry = self.entry(id);
        entry.held.get_or_insert(minor);
        entry.refunds_fail = refunds_fail;
        if is_captured {
            entry.captured.get_or_insert(minor);
        }
    }

    pub(super) fn capture(&mut self, capture: &Capture) -> Result<(), GatewayError> {
        let entry = self.of(&capture.transaction_id, &capture.payment_id)?;
        let asked = capture.amount.minor();
        if entry.is_canceled {
            return Err(canceled());
        }
        match entry.captured {
            Some(captured) if captured == asked => return Ok(()),
            Some(captured) => return Err(captured_already(capture.amount, captured)),
            None => {}
        }
        if entry.held.is_some_and(|held| asked > held) {
            let message = "The amount is larger than the gateway takes";
            return Err(refused("amount_too_large", message));
        }
        entry.captured = Some(asked);
        Ok(())
    }

    /// Whether a capture was made. One that the books cannot know counts as made.
    pub(super) fn find_capture(&mut self, capture: &Capture) -> Result<Option<()>, GatewayError> {
        let entry = self.of(&capture.transaction_id, &capture.payment_id)?;
        match (entry.is_canceled, entry.captured) {
            (true, _) => Err(canceled()),
            (false, Some(captured)) if captured != capture.amount.minor() => {
                Err(captured_already(capture.amount, captured))
            }
            (false, Some(_)) => Ok(Some(())),
            (false, None) => Ok(entry.held.is_none().then_some(())),
        }
    }

    pub(super) fn cancel(&mut self, id: &str, payment_id: &str) -> Result<(), GatewayError> {
        let entry = self.of(id, payment_id)?;
        if entry.captured.is_some() {
            return Err(conflict("The gateway has captured the payment already"));
        }
        entry.is_canceled = true;
        Ok(())
    }

    /// Whether a cancel was made. One that the books cannot know counts as made.
    pub(super) fn find_cancel(
        &mut self,
        id: &str,
        payment_id: &str,
    ) -> Result<Option<()>, GatewayError> {
        let entry = self.of(id, payment_id)?;
        if entry.captured.is_some() {
            return Err(conflict("The gateway has captured the payment already"));
        }
        Ok((entry.is_canceled || entry.held.is_none()).then_some(()))
    }

    /// Books a refund. Returns true if it is pending for a while and then fails.
    pub(super) fn refund(&mut self, refund: &GatewayRefund) -> Result<bool, GatewayError> {
        let entry = self.of(&refund.transaction_id, &refund.payment_id)?;
        if entry.is_canceled {
            return Err(canceled());
        }
        if entry.refunds_fail {
            // It will fail, so it takes nothing from what is left.
            return Ok(true);
        }
        if entry.refunds.contains_key(&refund.refund_id) {
            return Ok(false);
        }
        let asked = refund.amount.minor();
        // Another node may have captured what is only held in these books.
        if let Some(taken) = entry.captured.or(entry.held) {
            let left = taken.saturating_sub(entry.refunded);
            if left == 0 {
                return Err(GatewayError::Declined(Decline::new(
                    "charge_already_refunded",
                    "The gateway has refunded the payment already",
                )));
            }
            if asked > left {
                let message = "The gateway refused the request";
                return Err(refused("invalid_request", message));
            }
        }
        entry.refunded = entry.refunded.saturating_add(asked);
        if entry.refunds.len() < MAX_REFUNDS {
            entry.refunds.insert(refund.refund_id.clone(), asked);
        }
        Ok(false)
    }

    /// Whether the refunds of a charge fail after a while.
    pub(super) fn refunds_fail(&self, id: &str) -> bool {
        self.charges.get(id).is_some_and(|entry| entry.refunds_fail)
    }

    /// The entry of a charge, if the id is the payment's. No other id was ever held here.
    fn of(&mut self, id: &str, payment_id: &str) -> Result<&mut Entry, GatewayError> {
        match id == transaction_id(payment_id) {
            true => Ok(self.entry(id)),
            false => Err(GatewayError::Misconfigured {
                reason: "the simulated gateway never held this charge".to_owned(),
            }),
        }
    }

    fn entry(&mut self, id: &str) -> &mut Entry {
        if !self.charges.contains_key(id) {
            if self.charges.len() >= MAX_CHARGES
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.charges.remove(&oldest);
            }
            self.oldest_first.push_back(id.to_owned());
        }
        self.charges.entry(id.to_owned()).or_default()
    }
}

/// The id of a payment's charge.
pub(super) fn transaction_id(payment_id: &str) -> String {
    format!("sim_ch_{}", strip(payment_id, "pay_"))
}

fn captured_already(asked: Amount, captured: i64) -> GatewayError {
    let currency = asked.currency();
    let captured = Amount::from_minor(captured, currency);
    conflict(&format!(
        "The gateway has captured {captured} {} already",
        currency.code()
    ))
}

/// The error for a hold that lapsed or was released.
fn canceled() -> GatewayError {
    let message = "The charge was canceled at the gateway";
    GatewayError::Declined(Decline::new("canceled", message))
}

fn conflict(message: &str) -> GatewayError {
    GatewayError::Declined(Decline::new("payment_intent_unexpected_state", message))
}

fn refused(code: &str, message: &str) -> GatewayError {
    GatewayError::Refused(Refusal {
        code: code.to_owned(),
        message: message.to_owned(),
        param: Some("amount".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;

    const CHARGE: &str = "sim_ch_1";

    fn usd(minor: i64) -> Amount {
        Amount::from_minor(minor, Currency::from_code("USD").expect("USD"))
    }

    fn capture(minor: i64) -> Capture {
        Capture {
            key: "cap_1".to_owned(),
            payment_id: "pay_1".to_owned(),
            account: None,
            transaction_id: CHARGE.to_owned(),
            amount: usd(minor),
        }
    }

    fn refund(id: &str, minor: i64) -> GatewayRefund {
        GatewayRefund {
            refund_id: id.to_owned(),
            payment_id: "pay_1".to_owned(),
            merchant_id: "acme".to_owned(),
            account: None,
            transaction_id: CHARGE.to_owned(),
            amount: usd(minor),
        }
    }

    fn held() -> Books {
        let mut books = Books::default();
        books.charge(CHARGE, 100, false, false);
        books
    }

    fn word<T>(result: Result<T, GatewayError>) -> String {
        match result {
            Ok(_) => "done".to_owned(),
            Err(GatewayError::Declined(decline)) => format!("declined {}", decline.code),
            Err(GatewayError::Refused(refusal)) => format!("refused {}", refusal.code),
            Err(GatewayError::Misconfigured { .. }) => "misconfigured".to_owned(),
            Err(other) => panic!("{other}"),
        }
    }

    const UNEXPECTED: &str = "declined payment_intent_unexpected_state";

    #[test]
    fn what_was_never_held_is_refused() {
        let mut books = held();
        for id in ["sim_ch_2", "pi_1", ""] {
            let stranger = Capture {
                transaction_id: id.to_owned(),
                ..capture(100)
            };
            assert_eq!(word(books.capture(&stranger)), "misconfigured", "{id}");
            assert_eq!(word(books.find_capture(&stranger)), "misconfigured");
            assert_eq!(word(books.cancel(id, "pay_1")), "misconfigured");
            let stranger = GatewayRefund {
                transaction_id: id.to_owned(),
                ..refund("ref_1", 1)
            };
            assert_eq!(word(books.refund(&stranger)), "misconfigured");
        }
    }

    #[test]
    fn a_hold_is_captured_once_and_not_beyond_it() {
        let mut books = held();
        assert_eq!(books.find_capture(&capture(60)).expect("an answer"), None);
        assert_eq!(
            word(books.capture(&capture(101))),
            "refused amount_too_large"
        );
        assert_eq!(word(books.capture(&capture(60))), "done");
        assert_eq!(word(books.capture(&capture(60))), "done");
        assert_eq!(word(books.capture(&capture(61))), UNEXPECTED);
        assert_eq!(word(books.find_capture(&capture(61))), UNEXPECTED);
        assert_eq!(
            books.find_capture(&capture(60)).expect("an answer"),
            Some(())
        );
        assert_eq!(word(books.cancel(CHARGE, "pay_1")), UNEXPECTED);
        match books.capture(&capture(61)) {
            Err(GatewayError::Declined(decline)) => {
                assert_eq!(decline.message, "The gateway has captured 0.60 USD already");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_let_go_is_gone() {
        let mut books = held();
        assert_eq!(books.find_cancel(CHARGE, "pay_1").expect("an answer"), None);
        for _ in 0..2 {
            assert_eq!(word(books.cancel(CHARGE, "pay_1")), "done");
        }
        assert_eq!(
            books.find_cancel(CHARGE, "pay_1").expect("an answer"),
            Some(())
        );
        assert_eq!(word(books.capture(&capture(1))), "declined canceled");
        assert_eq!(word(books.refund(&refund("ref_1", 1))), "declined canceled");
    }

    #[test]
    fn refunds_never_exceed_what_was_captured() {
        let mut books = held();
        books.capture(&capture(60)).expect("a capture");
        assert_eq!(
            word(books.refund(&refund("ref_1", 61))),
            "refused invalid_request"
        );
        for _ in 0..2 {
            assert_eq!(word(books.refund(&refund("ref_1", 40))), "done");
        }
        assert_eq!(
            word(books.refund(&refund("ref_2", 21))),
            "refused invalid_request"
        );
        assert_eq!(word(books.refund(&refund("ref_3", 20))), "done");
        let nothing_left = word(books.refund(&refund("ref_4", 1)));
        assert_eq!(nothing_left, "declined charge_already_refunded");
    }

    #[test]
    fn what_this_process_never_saw_is_taken_as_it_is_asked_for() {
        let mut books = Books::default();
        assert_eq!(
            books.find_capture(&capture(60)).expect("an answer"),
            Some(())
        );
        assert_eq!(word(books.refund(&refund("ref_1", 40))), "done");
        let mut books = Books::default();
        assert_eq!(word(books.capture(&capture(60))), "done");
        assert_eq!(word(books.capture(&capture(61))), UNEXPECTED);
        assert_eq!(
            word(books.refund(&refund("ref_1", 61))),
            "refused invalid_request"
        );
    }

    #[test]
    fn the_books_are_bounded() {
        let mut books = held();
        for number in 0..MAX_CHARGES {
            books.charge(&format!("sim_ch_x{number}"), 1, true, false);
        }
        assert_eq!(books.charges.len(), MAX_CHARGES);
        assert_eq!(books.oldest_first.len(), MAX_CHARGES);
        assert!(
            !books.charges.contains_key(CHARGE),
            "the oldest is forgotten"
        );
    }
}
