//! Settles: keys, their answers and their payments, a group in one statement, or in two if rows have moved.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::column;
use super::location::RowLocations;
use crate::database::has_sqlstate;
use crate::idempotency::grouped::ResponseColumns;
use crate::payments::Payment;

/// A payment to be settled: the attempt that holds its key, its new row, and the answer.
pub(in crate::payments) struct PaymentSettle<'a> {
    pub(in crate::payments) attempt: i32,
    pub(in crate::payments) payment: &'a Payment,
    pub(in crate::payments) response: ResponseColumns<'a>,
    /// Where the claim has put its rows, if that is known.
    pub(in crate::payments) locations: Option<RowLocations>,
}

/// A key that was settled.
pub(super) struct SettledKey {
    pub(super) merchant_id: String,
    pub(super) key: String,
}

/// Which ones of a group were settled.
struct SettledInPlace {
    positions: Option<Vec<i32>>,
}

/// Settles payments of `operation`, each if its attempt still holds the key: the conditional update is the lock. Returns
/// for each whether it was settled.
///
/// One statement settles those whose rows are where the claims have put them, and commits by itself. Another one settles the others.
pub(in crate::payments) async fn settle_payments(
    connection: &mut PgConnection,
    operation: &str,
    owner: Uuid,
    settles: &[PaymentSettle<'_>],
) -> sqlx::Result<Vec<bool>> {
    let mut settled = settle_in_place(connection, operation, owner, settles).await?;
    let rest = settles.iter().zip(&settled);
    let rest = rest.filter_map(|(settle, is_settled)| (!is_settled).then_some(settle));
    let rest: Vec<&PaymentSettle<'_>> = rest.collect();
    if !rest.is_empty() {
        let found = settle_by_key(connection, operation, owner, &rest).await?;
        let open = settled.iter_mut().filter(|is_settled| !**is_settled);
        for (is_settled, found) in open.zip(found) {
            *is_settled = found;
        }
    }
    Ok(settled)
}

/// Settles the payments whose rows are where the claims have put them. If a row of one of them is missing there, none is settled.
async fn settle_in_place(
    connection: &mut PgConnection,
    operation: &str,
    owner: Uuid,
    settles: &[PaymentSettle<'_>],
) -> sqlx::Result<Vec<bool>> {
    let mut settled = vec![false; settles.len()];
    let located = settles.iter().zip(0_i32..);
    let located =
        located.filter_map(|(settle, position)| Some((settle, settle.locations?, position)));
    let located: Vec<_> = located.collect();
    if located.is_empty() {
        return Ok(settled);
    }
    let columns = Columns::of(operation, &column(&located, |(settle, ..)| *settle));
    let settled_in_place = sqlx::query_file_as!(
        SettledInPlace,
        "src/payments/store/settle_in_place.sql",
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
        column(&located, |(_, locations, _)| locations.key) as _,
        column(&located, |(_, locations, _)| locations.unsettled_key) as _,
        column(&located, |(_, locations, _)| locations.payment) as _,
        &column(&located, |(.., position)| *position),
    )
    .fetch_one(connection)
    .await;
    let positions = match settled_in_place {
        Err(error) if rows_have_moved(&error) => return Ok(settled),
        settled_in_place => settled_in_place?.positions,
    };
    for position in positions.unwrap_or_default() {
        let position = usize::try_from(position).ok();
        if let Some(is_settled) = position.and_then(|at| settled.get_mut(at)) {
            *is_settled = true;
        }
    }
    Ok(settled)
}

/// Returns true if a key was found in its place, and another row of its claim was not.
fn rows_have_moved(error: &sqlx::Error) -> bool {
    const DIVISION_BY_ZERO: &str = "22012";
    has_sqlstate(error, &[DIVISION_BY_ZERO])
}

async fn settle_by_key(
    connection: &mut PgConnection,
    operation: &str,
    owner: Uuid,
    settles: &[&PaymentSettle<'_>],
) -> sqlx::Result<Vec<bool>> {
    let columns = Columns::of(operation, settles);
    let keys = sqlx::query_file_as!(
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
    .await?;
    Ok(are_among(settles, &keys))
}

/// Returns for each settle whether its key is among these.
pub(super) fn are_among(settles: &[&PaymentSettle<'_>], keys: &[SettledKey]) -> Vec<bool> {
    let mut keys = column(keys, |SettledKey { merchant_id, key }| (merchant_id, key));
    keys.sort_unstable();
    column(settles, |settle| {
        let wanted = (&settle.payment.merchant_id, &settle.payment.idempotency_key);
        keys.binary_search(&wanted).is_ok()
    })
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
    pub(super) fn of(operation: &'a str, settles: &[&'a PaymentSettle<'a>]) -> Self {
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
