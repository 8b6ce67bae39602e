//! The payments' SQL. Every function runs one statement on a connection that the service or the engine lends it. The statements that
//! write a whole group are in files of their own, `claim.sql`, `settle_in_place.sql` and `settle.sql`, and those for the rows of one
//! merchant, as in tables that are distributed over several servers, are in `of_merchant`.

mod claim;
mod claim_group;
mod due_refunds;
mod lists;
mod location;
mod of_merchant;
mod payment_row;
mod payments;
mod refunds;
mod settle;

use chrono::{DateTime, Utc};

pub(super) use self::claim::{ClaimTerms, Claimed, NewClaim, PaymentClaim, find_answers};
pub(super) use self::claim_group::claim_payments;
pub(super) use self::due_refunds::{DueRefund, claim_check, list_due_refunds};
pub(super) use self::lists::{list_among, list_newest, list_newest_of_customer, list_payments};
pub(super) use self::location::RowLocations;
pub(super) use self::of_merchant::{claim_payments_of, settle_payments_of};
pub(super) use self::payments::{
    find_gateway_of, find_payment, find_payment_of_key, find_state_by_key, lock_claimed,
    lock_payment, remove_payment, save_payment,
};
pub(super) use self::refunds::{
    find_refund, find_refund_of_key, insert_refund, list_refunds, remove_refund, save_refund,
};
pub(super) use self::settle::{PaymentSettle, settle_payments};
use crate::gateway::Decline;
use crate::money::{Amount, ArithmeticError, Currency};

/// The payment or refund that a key made. It outlives the key's record.
pub(super) struct MadeByKey {
    pub(super) id: String,
    pub(super) created_at: DateTime<Utc>,
}

/// One column of a group: the same value of each of its items.
fn column<'a, I, T>(items: &'a [I], value: impl Fn(&'a I) -> T) -> Vec<T> {
    items.iter().map(value).collect()
}

fn failure(code: Option<String>, message: Option<String>) -> Option<Decline> {
    code.zip(message)
        .map(|(code, message)| Decline::new(code, message))
}

fn currency(code: &str) -> sqlx::Result<Currency> {
    Currency::from_code(code).ok_or_else(|| corrupt("currency"))
}

fn amount(minor: i64, currency: Currency) -> sqlx::Result<Amount> {
    Ok(Amount::try_from_minor(minor, currency)?)
}

/// Amounts that do not add up come from a row that the schema's constraints do not allow.
impl From<ArithmeticError> for sqlx::Error {
    fn from(error: ArithmeticError) -> Self {
        Self::Decode(Box::new(error))
    }
}

/// The error for a value that the schema's constraints do not allow, or that a newer version wrote.
fn corrupt(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{column} holds what this version does not know").into())
}
