//! Declines by their reason.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::database::{self, Bounded};

use super::super::super::store::merchants_asked;
use super::window_of_each;

/// Maximum number of reasons that are shown.
const REASONS: i64 = 100;

/// Minimum number of newest payments of each merchant that are examined.
const LEAST_OF_EACH: i64 = 50;

/// Declines for one reason.
#[derive(Clone, Debug)]
pub(in super::super) struct Decline {
    pub(in super::super) code: String,
    /// The message of the latest of them.
    pub(in super::super) message: String,
    pub(in super::super) declines: i64,
    pub(in super::super) merchants: i64,
    pub(in super::super) latest_at: DateTime<Utc>,
}

/// The declines of a span of time.
pub(in super::super) struct Declines {
    /// Most frequent first.
    pub(in super::super) reasons: Vec<Decline>,
    /// Number of payments that were examined.
    pub(in super::super) looked_at: i64,
    /// If there are older payments that were not examined: only ids before this one.
    pub(in super::super) next: Option<String>,
}

/// The declines among the newest 5,000 payments from `from` on and before `before`, which are ids.
///
/// If a merchant has more than its share of them, everything older is left out for all merchants, so that the figures are about one
/// span of time.
pub(in super::super) async fn list_declines(
    pool: &PgPool,
    merchant_id: Option<&str>,
    from: &str,
    before: &str,
) -> sqlx::Result<Declines> {
    let merchants = merchants_asked(pool, merchant_id).await?;
    let window = window_of_each(&merchants, LEAST_OF_EACH);
    let rows = sqlx::query!(
        r#"
        with looked_at as (
            select p.*
            from unnest($1::text[]) as m (merchant_id)
            cross join lateral (
                select
                    merchant_id,
                    payment_id,
                    state,
                    failure_code,
                    failure_message,
                    created_at
                from payments
                where merchant_id = m.merchant_id
                    and payment_id >= $2
                    and payment_id < $3
                order by payment_id desc
                limit $4
            ) as p
        ),
        frontier as (
            select max(window_end) as payment_id
            from (
                select min(payment_id) as window_end
                from looked_at
                group by merchant_id
                having count(*) >= $4
            ) as full_windows
        ),
        seen as (
            select l.*
            from looked_at l
            cross join frontier f
            where f.payment_id is null
                or l.payment_id >= f.payment_id
        ),
        declined as (
            select
                failure_code,
                (array_agg(failure_message order by payment_id desc))[1] as failure_message,
                count(*) as declines,
                count(distinct merchant_id) as merchants,
                max(created_at) as latest_at
            from seen
            where state = 'FAILED'
            group by failure_code
            order by count(*) desc, failure_code
            limit $5
        )
        select
            d.failure_code as "code?",
            d.failure_message as "message?",
            d.declines as "declines?",
            d.merchants as "merchants?",
            d.latest_at as "latest_at?",
            (select count(*) from seen) as "looked_at!",
            f.payment_id as frontier
        from frontier f
        left join declined d
            on true
        order by d.declines desc, d.failure_code
        "#,
        &merchants,
        from,
        before,
        window,
        REASONS,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    let first = rows.first();
    let next = first.and_then(|row| row.frontier.clone());
    let looked_at = first.map_or(0, |row| row.looked_at);
    let reasons = rows.into_iter().filter_map(|row| {
        Some(Decline {
            code: row.code?,
            message: row.message?,
            declines: row.declines?,
            merchants: row.merchants?,
            latest_at: row.latest_at?,
        })
    });
    Ok(Declines {
        reasons: reasons.collect(),
        looked_at,
        next,
    })
}
