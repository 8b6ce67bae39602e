//! The SQL of the console's pages of payments.
//!
//! There is no index for the console alone. Primary keys begin with the merchant, so a list over all merchants reads each merchant's
//! part of an index, one window of ids after the other ([`windows`]), and at most so many rows. PostgreSQL reads them in the index's
//! order, so the limit bounds the work. So every statement takes milliseconds, and its cost stays far below the one from which
//! PostgreSQL compiles it.

mod declines;
mod life;
mod refunds;
mod search;
mod windows;

pub(super) use self::declines::{Declines, list_declines};
pub(super) use self::life::{
    AtWork, Making, RefundOfPayment, find_making, find_refund, list_at_work, list_refunds,
};
pub(super) use self::refunds::{RefundListed, RefundsQuery, search_refunds};
pub(super) use self::search::{Filter, Found, Named, find_payments_of_key, search_payments};
pub(super) use self::windows::Ids;

/// The end of all ids: no id has a character above it.
pub(super) const END_OF_IDS: &str = "~";
