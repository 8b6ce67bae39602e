//! The SQL of the console's pages of payments.
//!
//! There is no index for the console alone. Primary keys begin with the merchant, so a query over all merchants reads each
//! merchant's part of an index (`cross join lateral`), with a limit that is known when the statement is planned. So every statement
//! takes milliseconds, and its cost stays far below the one from which PostgreSQL compiles it.

mod declines;
mod life;
mod refunds;
mod search;

pub(super) use self::declines::{Declines, list_declines};
pub(super) use self::life::{
    AtWork, Making, RefundOfPayment, find_making, find_refund, list_at_work, list_refunds,
};
pub(super) use self::refunds::{RefundListed, RefundsQuery, search_refunds};
pub(super) use self::search::{Filter, Found, find_payments_of_key, search_payments};

/// The end of all ids: no id has a character above it.
pub(super) const END_OF_IDS: &str = "~";

/// Maximum number of rows that one statement examines, over all merchants.
const LOOKED_AT_AT_ONCE: i64 = 5_000;

/// Number of rows of each of these merchants that a statement may examine; at least `least`.
fn window_of_each(merchants: &[String], least: i64) -> i64 {
    let merchants = i64::try_from(merchants.len()).unwrap_or(i64::MAX);
    least.max(LOOKED_AT_AT_ONCE / merchants.max(1))
}
