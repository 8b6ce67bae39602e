//! Payments: the search, and one payment with its life.

mod payment_page;
mod search_page;
mod store;
mod timeline;

use chrono::{DateTime, Utc};

pub(super) use self::payment_page::payment_page;
pub(super) use self::search_page::search_page;
use super::layout::href;

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
    created_at: DateTime<Utc>,
}

impl Listed {
    /// As clients are shown it: see [`crate::payments::Payment::shown_state`].
    fn shown_state(&self) -> &str {
        match self.pending_operation {
            Some(_) => "PROCESSING",
            None => &self.state,
        }
    }
}

/// A payment's address within the console.
pub(super) fn payment_href(merchant_id: &str, payment_id: &str) -> String {
    href(
        "/console/payment",
        &[("merchant", merchant_id), ("id", payment_id)],
    )
}

/// The address of a search by a merchant's key.
pub(super) fn search_href(merchant_id: &str, key: &str) -> String {
    href(
        "/console/payments",
        &[("merchant", merchant_id), ("key", key)],
    )
}
