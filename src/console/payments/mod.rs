//! Payments: the search, one payment with its life, a refund, and declines by their reason.

mod declines_page;
mod payment_page;
mod refund_page;
mod resource_query;
mod search_page;
mod search_query;
mod store;
mod timeline;
mod times;

use chrono::{DateTime, Utc};
use maud::{Markup, html};

pub(super) use self::declines_page::declines_page;
pub(super) use self::payment_page::payment_page;
pub(super) use self::refund_page::refund_page;
pub(super) use self::search_page::search_page;
use super::html;

/// A payment's line in a list.
#[derive(Clone, Debug)]
struct Listed {
    merchant_id: String,
    payment_id: String,
    idempotency_key: String,
    state: String,
    pending_operation: Option<String>,
    currency: String,
    amount_minor: i64,
    captured_minor: i64,
    refunded_minor: i64,
    failure_code: Option<String>,
    failure_message: Option<String>,
    created_at: DateTime<Utc>,
}

impl Listed {
    /// The state that clients see: [`crate::payments::Payment::shown_state`].
    fn shown_state(&self) -> &str {
        match self.pending_operation {
            Some(_) => "PROCESSING",
            None => &self.state,
        }
    }

    /// The state, and the reason of a failure.
    fn state_cell(&self) -> Markup {
        html! {
            (html::state(self.shown_state()))
            @if let (Some(code), Some(message)) = (&self.failure_code, &self.failure_message) {
                p .aside { (html::foreign(Some(message))) " (" code { (code) } ")" }
            }
        }
    }

    /// The amount, and how much of it was captured or refunded if that is neither all nor nothing.
    fn amount_cell(&self) -> Markup {
        let money = |minor| html::amount(minor, &self.currency);
        html! {
            span .amount { (money(self.amount_minor)) }
            @if self.captured_minor > 0 && self.captured_minor < self.amount_minor {
                p .aside { "captured " span .amount { (money(self.captured_minor)) } }
            }
            @if self.refunded_minor > 0 {
                p .aside { "refunded " span .amount { (money(self.refunded_minor)) } }
            }
        }
    }
}
