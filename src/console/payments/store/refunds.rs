//! Refunds by their own id or the gateway's.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::database::{self, Bounded};

use super::super::super::store::{Merchants, merchants_asked};
use super::windows::{AT_ONCE, Examined, Ids, Window, Windows};

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
    pub(in super::super) ids: Ids,
    /// The beginning of the gateway's id, which is looked for among the newest.
    pub(in super::super) at_gateway: Option<String>,
}

/// Refunds, newest first. A gateway's id is looked for among the newest 5,000 of that time. `now` is the time of the query.
pub(in super::super) async fn search_refunds(
    pool: &PgPool,
    merchant_id: Option<&str>,
    query: &RefundsQuery,
    limit: usize,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<RefundListed>> {
    let merchants = merchants_asked(pool, merchant_id).await?;
    let a_page = i64::try_from(limit).unwrap_or(i64::MAX);
    let to_examine = match query.at_gateway {
        Some(_) => AT_ONCE,
        None => a_page,
    };
    let mut windows = Windows::new(&merchants, query.ids.clone(), to_examine, now);
    let mut refunds = Vec::new();
    let mut looked_at = 0;
    while refunds.len() < limit
        && looked_at < AT_ONCE
        && let Some(window) = windows.next()
    {
        let (examined, matching) = look_at(pool, &merchants, query, &window, a_page).await?;
        if windows.was_read(&examined) {
            windows.go_on(&examined);
            refunds.extend(matching);
            looked_at += examined.rows;
        }
    }
    refunds.truncate(limit);
    Ok(refunds)
}

async fn look_at(
    pool: &PgPool,
    merchants: &Merchants,
    query: &RefundsQuery,
    window: &Window,
    limit: i64,
) -> sqlx::Result<(Examined, Vec<RefundListed>)> {
    let seen = sqlx::query!(
        r#"
        with looked_at as (
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
            where ($1::text is null or merchant_id = $1)
                and ($2::text[] is null or merchant_id = any($2))
                and refund_id >= $3
                and refund_id < $4
            order by
                merchant_id desc,
                refund_id desc
            limit $5
        ),
        examined as (
            select
                count(*) as refunds,
                min(refund_id) as oldest
            from looked_at
        )
        select
            l.merchant_id as "merchant_id?",
            l.refund_id as "refund_id?",
            l.payment_id as "payment_id?",
            l.state as "state?",
            l.amount_minor as "amount_minor?",
            l.currency as "currency?",
            l.failure_code,
            l.created_at as "created_at?",
            e.refunds as "examined!",
            e.oldest
        from examined e
        left join looked_at l
            on ($6::text is null or starts_with(l.gateway_refund_id, $6))
        order by l.refund_id desc
        limit $7
        "#,
        merchants.one(),
        merchants.many(),
        window.from,
        window.before,
        window.limit,
        query.at_gateway,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    let examined = seen.first().map_or_else(Examined::default, |row| Examined {
        rows: row.examined,
        oldest: row.oldest.clone(),
    });
    let refunds = seen.into_iter().filter_map(|row| {
        Some(RefundListed {
            merchant_id: row.merchant_id?,
            refund_id: row.refund_id?,
            payment_id: row.payment_id?,
            state: row.state?,
            amount_minor: row.amount_minor?,
            currency: row.currency?,
            failure_code: row.failure_code,
            created_at: row.created_at?,
        })
    });
    Ok((examined, refunds.collect()))
}
