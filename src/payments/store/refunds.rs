//! Refunds.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::due_refunds::FIRST_LOOK_AFTER;
use super::{MadeByKey, amount, corrupt, currency, failure};
use crate::database::interval;
use crate::payments::{Refund, RefundState};

/// The refund that a key made.
pub(in crate::payments) async fn find_refund_of_key(
    connection: &mut PgConnection,
    merchant_id: &str,
    key: &str,
) -> sqlx::Result<Option<MadeByKey>> {
    sqlx::query_as!(
        MadeByKey,
        r#"
        select
            refund_id as id,
            created_at
        from refunds
        where merchant_id = $1
            and idempotency_key = $2
        "#,
        merchant_id,
        key,
    )
    .fetch_optional(connection)
    .await
}

/// Inserts a refund in `PROCESSING`. Returns its time, which is the transaction's.
pub(in crate::payments) async fn insert_refund(
    connection: &mut PgConnection,
    refund: &Refund,
) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(
        r#"
        insert into refunds (
            merchant_id,
            refund_id,
            payment_id,
            idempotency_key,
            state,
            amount_minor,
            currency,
            reason,
            created_at,
            updated_at
        )
        values ($1, $2, $3, $4, 'PROCESSING', $5, $6, $7, now(), now())
        returning created_at
        "#,
        refund.merchant_id,
        refund.id,
        refund.payment_id,
        refund.idempotency_key,
        refund.amount.minor(),
        refund.amount.currency().code(),
        refund.reason,
    )
    .fetch_one(connection)
    .await
}

/// Saves a refund's outcome.
pub(in crate::payments) async fn save_refund(
    connection: &mut PgConnection,
    refund: &Refund,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update refunds
        set state = $3,
            gateway_refund_id = $4,
            failure_code = $5,
            failure_message = $6,
            updated_at = now(),
            next_look_at = now() + $7::interval
        where merchant_id = $1
            and refund_id = $2
        "#,
        refund.merchant_id,
        refund.id,
        refund.state.as_str(),
        refund.gateway_refund_id,
        refund.failure.as_ref().map(|failure| failure.code.as_str()),
        refund
            .failure
            .as_ref()
            .map(|failure| failure.message.as_str()),
        // No interval: no time. A cluster takes no CASE with a time in it.
        (refund.state == RefundState::Pending).then(|| interval(FIRST_LOOK_AFTER)),
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Removes a refund for which nothing happened.
pub(in crate::payments) async fn remove_refund(
    connection: &mut PgConnection,
    merchant_id: &str,
    refund_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        delete from refunds
        where merchant_id = $1
            and refund_id = $2
            and state = 'PROCESSING'
        "#,
        merchant_id,
        refund_id,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// One refund.
pub(in crate::payments) async fn find_refund(
    connection: &mut PgConnection,
    merchant_id: &str,
    refund_id: &str,
) -> sqlx::Result<Option<Refund>> {
    Ok(
        select_refunds(connection, merchant_id, Some(refund_id), None)
            .await?
            .pop(),
    )
}

/// A payment's refunds, newest first.
pub(in crate::payments) async fn list_refunds(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Vec<Refund>> {
    select_refunds(connection, merchant_id, None, Some(payment_id)).await
}

async fn select_refunds(
    connection: &mut PgConnection,
    merchant_id: &str,
    refund_id: Option<&str>,
    payment_id: Option<&str>,
) -> sqlx::Result<Vec<Refund>> {
    sqlx::query_as!(
        RefundRow,
        r#"
        select
            merchant_id,
            refund_id,
            payment_id,
            idempotency_key,
            state,
            amount_minor,
            currency,
            reason,
            gateway_refund_id,
            failure_code,
            failure_message,
            created_at
        from refunds
        where merchant_id = $1
            and ($2::text is null or refund_id = $2)
            and ($3::text is null or payment_id = $3)
        order by refund_id desc
        "#,
        merchant_id,
        refund_id,
        payment_id,
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(RefundRow::into_refund)
    .collect()
}

struct RefundRow {
    merchant_id: String,
    refund_id: String,
    payment_id: String,
    idempotency_key: String,
    state: String,
    amount_minor: i64,
    currency: String,
    reason: Option<String>,
    gateway_refund_id: Option<String>,
    failure_code: Option<String>,
    failure_message: Option<String>,
    created_at: DateTime<Utc>,
}

impl RefundRow {
    fn into_refund(self) -> sqlx::Result<Refund> {
        Ok(Refund {
            merchant_id: self.merchant_id,
            id: self.refund_id,
            payment_id: self.payment_id,
            idempotency_key: self.idempotency_key,
            state: RefundState::from_name(&self.state).ok_or_else(|| corrupt("refunds.state"))?,
            amount: amount(self.amount_minor, currency(&self.currency)?)?,
            reason: self.reason,
            gateway_refund_id: self.gateway_refund_id,
            failure: failure(self.failure_code, self.failure_message),
            created_at: self.created_at,
        })
    }
}
