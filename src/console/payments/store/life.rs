//! The SQL of one payment's page and of one refund's.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::database::{self, Bounded};
use crate::idempotency::ScopedKey;

/// A refund on its payment's page.
#[derive(Clone, Debug)]
pub(in super::super) struct RefundOfPayment {
    pub(in super::super) refund_id: String,
    pub(in super::super) idempotency_key: String,
    pub(in super::super) state: String,
    pub(in super::super) amount_minor: i64,
    pub(in super::super) reason: Option<String>,
    pub(in super::super) gateway_refund_id: Option<String>,
    pub(in super::super) failure_code: Option<String>,
    pub(in super::super) failure_message: Option<String>,
    pub(in super::super) created_at: DateTime<Utc>,
    pub(in super::super) updated_at: DateTime<Utc>,
}

/// A payment's refunds, oldest first.
pub(in super::super) async fn list_refunds(
    pool: &PgPool,
    merchant_id: &str,
    payment_id: &str,
    limit: i64,
) -> sqlx::Result<Vec<RefundOfPayment>> {
    sqlx::query_as!(
        RefundOfPayment,
        r#"
        select
            refund_id,
            idempotency_key,
            state,
            amount_minor,
            reason,
            gateway_refund_id,
            failure_code,
            failure_message,
            created_at,
            updated_at
        from refunds
        where merchant_id = $1
            and payment_id = $2
        order by refund_id
        limit $3
        "#,
        merchant_id,
        payment_id,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await
}

/// What the record of a payment's own key says about its creation.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Making {
    pub(in super::super) attempt: i32,
    pub(in super::super) completed_at: Option<DateTime<Utc>>,
}

/// The record of the key that made a payment, until it has expired.
pub(in super::super) async fn find_making(
    pool: &PgPool,
    scope: &ScopedKey,
    payment_id: &str,
) -> sqlx::Result<Option<Making>> {
    sqlx::query_as!(
        Making,
        r#"
        select
            attempt,
            completed_at
        from idempotency_keys
        where merchant_id = $1
            and operation = $2
            and key = $3
            and resource_id = $4
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
        payment_id,
    )
    .fetch_optional(&mut *database::acquire(pool).await?)
    .bounded()
    .await
}

/// A key whose work on a payment is in progress.
#[derive(Clone, Debug)]
pub(in super::super) struct AtWork {
    pub(in super::super) operation: String,
    pub(in super::super) key: String,
    pub(in super::super) claimed_at: DateTime<Utc>,
}

/// The captures and cancels of a payment that are in progress.
pub(in super::super) async fn list_at_work(
    pool: &PgPool,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Vec<AtWork>> {
    sqlx::query_as!(
        AtWork,
        r#"
        select
            u.operation,
            u.key,
            u.claimed_at
        from unsettled_keys u
        join idempotency_keys k
            on k.merchant_id = u.merchant_id
            and k.operation = u.operation
            and k.key = u.key
        where u.merchant_id = $1
            and u.operation in ('capture_payment', 'cancel_payment')
            and k.resource_id = $2
        order by u.claimed_at
        limit 10
        "#,
        merchant_id,
        payment_id,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await
}

/// One refund, with its payment's id and currency.
pub(in super::super) async fn find_refund(
    pool: &PgPool,
    merchant_id: &str,
    refund_id: &str,
) -> sqlx::Result<Option<(String, String, RefundOfPayment)>> {
    let row = sqlx::query!(
        r#"
        select
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
            created_at,
            updated_at
        from refunds
        where merchant_id = $1
            and refund_id = $2
        "#,
        merchant_id,
        refund_id,
    )
    .fetch_optional(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    Ok(row.map(|row| {
        let refund = RefundOfPayment {
            refund_id: row.refund_id,
            idempotency_key: row.idempotency_key,
            state: row.state,
            amount_minor: row.amount_minor,
            reason: row.reason,
            gateway_refund_id: row.gateway_refund_id,
            failure_code: row.failure_code,
            failure_message: row.failure_message,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        (row.payment_id, row.currency, refund)
    }))
}
