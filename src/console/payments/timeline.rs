//! A payment's history, from the tables, in order.
//!
//! The tables have the time of its creation, of its outcome, of each refund, and of the last change. For a capture that was
//! followed by a refund they have the amount but not the time.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::super::{html, links};
use super::store::{AtWork, Making, RefundOfPayment};
use crate::gateway::{CaptureMethod, Decline};
use crate::payments::{Operation, Payment, PaymentState};

/// The data on one payment.
pub(super) struct Life {
    pub(super) payment: Payment,
    pub(super) making: Option<Making>,
    pub(super) at_work: Vec<AtWork>,
    pub(super) refunds: Vec<RefundOfPayment>,
}

struct Event {
    at: DateTime<Utc>,
    what: Markup,
}

impl Life {
    /// The events, oldest first.
    pub(super) fn timeline(&self) -> Markup {
        let mut events = vec![self.claimed()];
        events.extend(self.outcome());
        events.extend(self.at_work.iter().map(|at_work| self.under_way(at_work)));
        events.extend(self.captured_or_canceled());
        events.extend(self.refunds.iter().flat_map(|refund| self.refund(refund)));
        events.sort_by_key(|event| event.at);
        html! {
            ol .timeline {
                @for event in &events { li { p .when { (html::time(event.at)) } p { (event.what) } } }
            }
        }
    }

    fn claimed(&self) -> Event {
        let payment = &self.payment;
        Event {
            at: payment.created_at,
            what: html! {
                strong { "Claimed" } " by key " (self.key_link(Operation::CreatePayment, &payment.idempotency_key))
                ", and " (payment.gateway_type) " was asked to "
                @match payment.capture_method {
                    CaptureMethod::Automatic => "charge ",
                    CaptureMethod::Manual => "hold ",
                }
                (self.in_words(payment.amount.minor())) " under the payment's id."
            },
        }
    }

    /// The claim's outcome. The key's record has its time. Without the record, the time of the last change is shown if nothing else
    /// happened to the payment.
    fn outcome(&self) -> Option<Event> {
        let payment = &self.payment;
        if payment.state == PaymentState::Processing {
            return None;
        }
        let attempts = self.making.map_or(1, |making| making.attempt);
        let was_untouched = matches!(payment.state, PaymentState::Failed | PaymentState::Success)
            && payment.capture_method == CaptureMethod::Automatic;
        let at = self
            .making
            .and_then(|making| making.completed_at)
            .or(was_untouched.then_some(payment.updated_at))?;
        Some(Event {
            at,
            what: html! {
                @match (&payment.failure, payment.state) {
                    (Some(Decline { code, message, .. }), PaymentState::Failed) => {
                        strong { "Declined" } ": " (message) " (" code { (code) } ")."
                    }
                    _ => {
                        strong { @if payment.capture_method == CaptureMethod::Manual { "Authorized" } @else { "Charged" } }
                        ": transaction " code { (html::or_dash(payment.gateway_transaction_id.as_ref())) } "."
                    }
                }
                @if attempts > 1 { " It took " (attempts) " attempts: the claim was taken over." }
            },
        })
    }

    fn under_way(&self, at_work: &AtWork) -> Event {
        Event {
            at: at_work.claimed_at,
            what: html! {
                strong { (at_work.operation) } " began with key "
                (links::key(&self.payment.merchant_id, &at_work.operation, &at_work.key))
                "; its outcome is not known yet."
            },
        }
    }

    fn captured_or_canceled(&self) -> Option<Event> {
        let payment = &self.payment;
        if payment.capture_method != CaptureMethod::Manual || !self.refunds.is_empty() {
            return None;
        }
        let what = match payment.state {
            PaymentState::Canceled => html! { strong { "Canceled" } ": what was held was let go." },
            PaymentState::Success => {
                html! { strong { "Captured" } " " (self.in_words(payment.captured.minor())) "." }
            }
            _ => return None,
        };
        Some(Event {
            at: payment.updated_at,
            what,
        })
    }

    fn refund(&self, refund: &RefundOfPayment) -> Vec<Event> {
        let began = Event {
            at: refund.created_at,
            what: html! {
                strong { "Refund" } " of " (self.in_words(refund.amount_minor)) " began with key "
                (self.key_link(Operation::RefundPayment, &refund.idempotency_key))
                @if let Some(reason) = &refund.reason { ": " (html::foreign(Some(reason))) }
                "."
            },
        };
        let what = match (refund.state.as_str(), &refund.failure_code) {
            ("PROCESSING", _) => return vec![began],
            (_, Some(code)) => html! {
                strong { "Refund failed" } ": " (html::or_dash(refund.failure_message.as_ref()))
                " (" code { (code) } "), " (self.refund_link(refund)) "."
            },
            _ => html! {
                strong { "Refunded" } " " (self.in_words(refund.amount_minor)) ": " (self.refund_link(refund))
                ", at the gateway " code { (html::or_dash(refund.gateway_refund_id.as_ref())) } "."
            },
        };
        let ended = Event {
            at: refund.updated_at,
            what,
        };
        vec![began, ended]
    }

    fn in_words(&self, minor: i64) -> String {
        html::amount(minor, self.payment.amount.currency().code())
    }

    fn key_link(&self, operation: Operation, key: &str) -> Markup {
        links::key(&self.payment.merchant_id, operation.as_str(), key)
    }

    fn refund_link(&self, refund: &RefundOfPayment) -> Markup {
        links::resource(&self.payment.merchant_id, &refund.refund_id)
    }
}
