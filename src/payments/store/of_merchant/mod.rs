//! Claims and settles of one merchant, for tables that are distributed by merchant: each statement names the merchant as a value, so
//! it is planned for one node and sent to it. A claim takes four statements there, in one transaction: Citus carries out a statement
//! that inserts in its WITH clause step by step, over files on the nodes.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::claim::{self, ClaimResults, ClaimTerms, Claimed, PaymentClaim};
use super::column;
use super::settle::{self, PaymentSettle, SettledKey};
use crate::idempotency::grouped::{FINGERPRINT_VERSION, FoundColumns, Inserted};

/// The compiler has to know of the files that its result depends on. `query_file!` names its file only where rows are returned.
const _: [&str; 2] = [
    include_str!("claim_unsettled.sql"),
    include_str!("claim_payments.sql"),
];

/// A key whose payment was made before, and its answer if it is final and has not expired.
struct SeenPayment {
    key: String,
    expires_at: Option<DateTime<Utc>>,
    seconds_left: Option<f64>,
    fingerprint: Option<Vec<u8>>,
    fingerprint_version: Option<i16>,
    fingerprint_fields: Option<String>,
    response_status: Option<i16>,
    response_headers: Option<Value>,
    response_body: Option<Vec<u8>>,
}

impl SeenPayment {
    fn answer(self) -> Option<FoundColumns> {
        Some(FoundColumns {
            fingerprint: self.fingerprint,
            fingerprint_version: self.fingerprint_version,
            fingerprint_fields: self.fingerprint_fields,
            status: self.response_status,
            headers: self.response_headers,
            body: self.response_body,
            expires_at: self.expires_at?,
            seconds_left: self.seconds_left?,
        })
    }
}

struct InsertedKey {
    key: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

/// Does what [`claim_payments`](super::claim_payments) does, for claims of one merchant and one operation.
pub(in crate::payments) async fn claim_payments_of(
    connection: &mut PgConnection,
    merchant_id: &str,
    terms: &ClaimTerms,
    claims: &[PaymentClaim<'_>],
) -> sqlx::Result<Vec<Option<Claimed>>> {
    let Some(operation) = claims.first().map(|claim| &claim.key.scope.operation) else {
        return Ok(Vec::new());
    };
    let mut results = ClaimResults::new(claims);
    let mut tx = connection.begin().await?;
    let seen = seen(&mut tx, merchant_id, operation, claims).await?;
    let is_new = |claim: &&PaymentClaim<'_>| {
        let key = claim.key.scope.key.as_str();
        seen.iter().all(|seen| seen.key != key)
    };
    let new: Vec<&PaymentClaim<'_>> = claims.iter().filter(is_new).collect();
    match insert(&mut tx, merchant_id, operation, terms, &new).await? {
        Some(inserted) => {
            tx.commit().await?;
            for InsertedKey {
                key,
                created_at,
                expires_at,
            } in inserted
            {
                let inserted = Inserted {
                    created_at,
                    expires_at,
                };
                results.claimed(merchant_id, &key, inserted);
            }
        }
        None if claims.len() > 1 => {
            tx.rollback().await?;
            return Err(sqlx::Error::InvalidArgument(
                "a key of the group has no payment, or a payment no key".to_owned(),
            ));
        }
        None => tx.rollback().await?,
    }
    for mut seen in seen {
        let key = std::mem::take(&mut seen.key);
        if let Some(columns) = seen.answer() {
            results.found(merchant_id, &key, columns);
        }
    }
    Ok(results.into_vec())
}

async fn seen(
    connection: &mut PgConnection,
    merchant_id: &str,
    operation: &str,
    claims: &[PaymentClaim<'_>],
) -> sqlx::Result<Vec<SeenPayment>> {
    let keys = column(claims, |claim| claim.key.scope.key.as_str());
    sqlx::query_file_as!(
        SeenPayment,
        "src/payments/store/of_merchant/seen.sql",
        merchant_id,
        operation,
        &keys as _,
    )
    .fetch_all(connection)
    .await
}

/// Returns `None` if a key was inserted without its payment, or a payment without its key.
async fn insert(
    connection: &mut PgConnection,
    merchant_id: &str,
    operation: &str,
    terms: &ClaimTerms,
    claims: &[&PaymentClaim<'_>],
) -> sqlx::Result<Option<Vec<InsertedKey>>> {
    if claims.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let columns = claim::Columns::of(claims);
    let inserted = sqlx::query_file_as!(
        InsertedKey,
        "src/payments/store/of_merchant/claim_keys.sql",
        merchant_id,
        operation,
        &columns.keys as _,
        &columns.fingerprints as _,
        &columns.fingerprint_fields as _,
        &columns.payment_ids as _,
        FINGERPRINT_VERSION,
        terms.owner,
        &terms.lock_timeout,
        &terms.ttl,
    )
    .fetch_all(&mut *connection)
    .await?;
    // Most often all keys are inserted, or none.
    let Some(created_at) = inserted.first().map(|key| key.created_at) else {
        return Ok(Some(inserted));
    };
    if inserted.len() < claims.len() {
        return Ok(None);
    }
    let created_ats = column(claims, |_| created_at);
    sqlx::query_file!(
        "src/payments/store/of_merchant/claim_unsettled.sql",
        merchant_id,
        operation,
        &columns.keys as _,
        &created_ats,
    )
    .execute(&mut *connection)
    .await?;
    let made = insert_payments(connection, merchant_id, &columns, &created_ats).await?;
    let is_whole = usize::try_from(made).is_ok_and(|made| made == claims.len());
    Ok(is_whole.then_some(inserted))
}

async fn insert_payments(
    connection: &mut PgConnection,
    merchant_id: &str,
    columns: &claim::Columns<'_>,
    created_ats: &[DateTime<Utc>],
) -> sqlx::Result<u64> {
    let made = sqlx::query_file!(
        "src/payments/store/of_merchant/claim_payments.sql",
        merchant_id,
        &columns.keys as _,
        &columns.payment_ids as _,
        &columns.currencies as _,
        &columns.amounts,
        &columns.capture_methods as _,
        &columns.gateway_types as _,
        &columns.gateway_tokens as _,
        &columns.card_brands as _,
        &columns.card_last4s as _,
        &columns.card_expiry_months as _,
        &columns.card_expiry_years as _,
        &columns.card_holder_names as _,
        &columns.customer_ids as _,
        &columns.customer_emails as _,
        &columns.customer_names as _,
        &columns.descriptions as _,
        &columns.metadata as _,
        &columns.failure_codes as _,
        &columns.failure_messages as _,
        &columns.gateway_accounts as _,
        &columns.gateway_customer_ids as _,
        &columns.off_sessions,
        created_ats,
    )
    .execute(connection)
    .await?;
    Ok(made.rows_affected())
}

/// Does what [`settle_payments`](super::settle_payments) does, for payments of one merchant.
pub(in crate::payments) async fn settle_payments_of(
    connection: &mut PgConnection,
    merchant_id: &str,
    operation: &str,
    owner: Uuid,
    settles: &[PaymentSettle<'_>],
) -> sqlx::Result<Vec<bool>> {
    let settles = column(settles, |settle| settle);
    let columns = settle::Columns::of(operation, &settles);
    let keys = sqlx::query_file_as!(
        SettledKey,
        "src/payments/store/of_merchant/settle.sql",
        merchant_id,
        operation,
        owner,
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
        &columns.failure_advice_codes as _,
        &columns.failure_network_advice_codes as _,
        &columns.failure_network_decline_codes as _,
    )
    .fetch_all(connection)
    .await?;
    Ok(settle::are_among(&settles, &keys))
}
