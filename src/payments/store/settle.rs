//! Settles: keys, their answers and their payments, a group in one statement.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::column;
use crate::idempotency::grouped::ResponseColumns;
use crate::payments::Payment;

/// A payment to be settled: the attempt that holds its key, its new row, and the answer.
pub(in crate::payments) struct PaymentSettle<'a> {
    pub(in crate::payments) attempt: i32,
    pub(in crate::payments) payment: &'a Payment,
    pub(in crate::payments) response: ResponseColumns<'a>,
}

/// A key that was settled.
pub(in crate::payments) struct SettledKey {
    pub(in crate::payments) merchant_id: String,
    pub(in crate::payments) key: String,
}

/// Settles payments of `operation`, each if its attempt still holds the key, in one statement that commits by itself: the
/// conditional update is the lock. Returns those that were settled.
pub(in crate::payments) async fn settle_payments(
    connection: &mut PgConnection,
    operation: &str,
    owner: Uuid,
    settles: &[PaymentSettle<'_>],
) -> sqlx::Result<Vec<SettledKey>> {
    let columns = Columns::of(operation, settles);
    sqlx::query_file_as!(
        SettledKey,
        "src/payments/store/settle.sql",
        &columns.merchant_ids as _,
        &columns.keys as _,
        &columns.attempts,
        &columns.key_states as _,
        &columns.response_statuses,
        &columns.response_headers as _,
        &columns.response_bodies as _,
        &columns.payment_ids as _,
        &columns.states as _,
        &columns.captured_amounts,
        &columns.gateway_transaction_ids as _,
        &columns.card_brands as _,
        &columns.card_last4s as _,
        &columns.card_expiry_months as _,
        &columns.card_expiry_years as _,
        &columns.failure_codes as _,
        &columns.failure_messages as _,
        &columns.updated_ats,
        &columns.operations as _,
        &columns.failure_advice_codes as _,
        &columns.failure_network_advice_codes as _,
        &columns.failure_network_decline_codes as _,
        owner,
    )
    .fetch_all(connection)
    .await
}

/// A group's settles, column by column, as the statement takes them.
pub(super) struct Columns<'a> {
    pub(super) merchant_ids: Vec<&'a str>,
    pub(super) keys: Vec<&'a str>,
    pub(super) attempts: Vec<i32>,
    pub(super) key_states: Vec<&'a str>,
    pub(super) response_statuses: Vec<i16>,
    pub(super) response_headers: Vec<&'a Value>,
    pub(super) response_bodies: Vec<&'a [u8]>,
    pub(super) payment_ids: Vec<&'a str>,
    pub(super) states: Vec<&'a str>,
    pub(super) captured_amounts: Vec<i64>,
    pub(super) gateway_transaction_ids: Vec<Option<&'a str>>,
    pub(super) card_brands: Vec<Option<&'a str>>,
    pub(super) card_last4s: Vec<Option<&'a str>>,
    pub(super) card_expiry_months: Vec<Option<i16>>,
    pub(super) card_expiry_years: Vec<Option<i16>>,
    pub(super) failure_codes: Vec<Option<&'a str>>,
    pub(super) failure_messages: Vec<Option<&'a str>>,
    pub(super) updated_ats: Vec<DateTime<Utc>>,
    /// The same for all. With a constant in its place the planner may scan the whole index.
    pub(super) operations: Vec<&'a str>,
    pub(super) failure_advice_codes: Vec<Option<&'a str>>,
    pub(super) failure_network_advice_codes: Vec<Option<&'a str>>,
    pub(super) failure_network_decline_codes: Vec<Option<&'a str>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(operation: &'a str, settles: &'a [PaymentSettle<'a>]) -> Self {
        let payments = column(settles, |settle| settle.payment);
        let cards = column(settles, |settle| settle.payment.card.as_ref());
        let failures = column(settles, |settle| settle.payment.failure.as_ref());
        let advice = column(&failures, |failure| failure.map(|f| &f.advice));
        Self {
            merchant_ids: column(&payments, |p| p.merchant_id.as_str()),
            keys: column(&payments, |p| p.idempotency_key.as_str()),
            attempts: column(settles, |s| s.attempt),
            key_states: column(settles, |s| s.response.state),
            response_statuses: column(settles, |s| s.response.status),
            response_headers: column(settles, |s| &s.response.headers),
            response_bodies: column(settles, |s| s.response.body),
            payment_ids: column(&payments, |p| p.id.as_str()),
            states: column(&payments, |p| p.state.as_str()),
            captured_amounts: column(&payments, |p| p.captured.minor()),
            gateway_transaction_ids: column(&payments, |p| p.gateway_transaction_id.as_deref()),
            card_brands: column(&cards, |card| card.map(|card| card.brand.as_str())),
            card_last4s: column(&cards, |card| card.map(|card| card.last4.as_str())),
            card_expiry_months: column(&cards, |card| card.map(|card| card.expiry_month.into())),
            card_expiry_years: column(&cards, |card| {
                card.and_then(|card| card.expiry_year.try_into().ok())
            }),
            failure_codes: column(&failures, |failure| failure.map(|f| f.code.as_str())),
            failure_messages: column(&failures, |failure| failure.map(|f| f.message.as_str())),
            updated_ats: column(&payments, |p| p.updated_at),
            operations: column(settles, |_| operation),
            failure_advice_codes: column(&advice, |advice| {
                advice.and_then(|advice| advice.advice_code.as_deref())
            }),
            failure_network_advice_codes: column(&advice, |advice| {
                advice.and_then(|advice| advice.network_advice_code.as_deref())
            }),
            failure_network_decline_codes: column(&advice, |advice| {
                advice.and_then(|advice| advice.network_decline_code.as_deref())
            }),
        }
    }
}
