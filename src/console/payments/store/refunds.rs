//! Refunds by their own id or the gateway's.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::database::{self, Bounded};

use super::super::super::store::merchants_asked;
use super::window_of_each;

/// A refund's line in a list.
#[derive(Clone, Debug)]
pub(in super::super) struct RefundListed {
    pub(in super::super) merchant_id: String,
    pub(in super::super) refund_id: String,
    pub(in super::super) payment_id: String,
    pub(in super::super) state: String,
    pub(in super::super) amount_minor: i64,
    pub(in super::super) currency: String,
    pub(in super::super) failure_code: Option<String>,
    pub(in super::super) created_at: DateTime<Utc>,
}

/// The conditions of the list.
#[derive(Clone, Debug)]
pub(in super::super) struct RefundsQuery {
    /// Only ids from this one on.
    pub(in super::super) from: String,
    /// Only ids before this one.
    pub(in super::super) before: String,
    /// The beginning of the gateway's id, which is looked for among the newest.
    pub(in super::super) at_gateway: Option<String>,
}

/// Refunds, newest first. A gateway's id is looked for among the newest 5,000 of that time.
pub(in super::super) async fn search_refunds(
    pool: &PgPool,
    merchant_id: Option<&str>,
    query: &RefundsQuery,
    limit: i64,
) -> sqlx::Result<Vec<RefundListed>> {
    let merchants = merchants_asked(pool, merchant_id).await?;
    let window = match query.at_gateway {
        Some(_) => window_of_each(&merchants, limit),
        None => limit,
    };
    sqlx::query_as!(
        RefundListed,
        r#"
        select
            r.merchant_id as "merchant_id!",
            r.refund_id as "refund_id!",
            r.payment_id as "payment_id!",
            r.state as "state!",
            r.amount_minor as "amount_minor!",
            r.currency as "currency!",
            r.failure_code,
            r.created_at as "created_at!"
        from unnest($1::text[]) as m (merchant_id)
        cross join lateral (
            select
                merchant_id,
                refund_id,
                payment_id,
                state,
                amount_minor,
                currency,
                gateway_refund_id,
                failure_code,
                created_at
            from refunds
            where merchant_id = m.merchant_id
                and refund_id >= $2
                and refund_id < $3
            order by refund_id desc
            limit $4
        ) as r
        where ($5::text is null or starts_with(r.gateway_refund_id, $5))
        order by r.refund_id desc
        limit $6
        "#,
        &merchants,
        query.from,
        query.before,
        window,
        query.at_gateway,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await
}
