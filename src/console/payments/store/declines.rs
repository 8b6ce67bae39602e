//! Declines by their reason.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::database::{self, Bounded};

use super::super::super::store::{Merchants, merchants_asked};
use super::windows::{AT_ONCE, Examined, Ids, Window, Windows};

/// Maximum number of reasons that are shown.
const REASONS: i64 = 100;

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
#[derive(Debug, Default)]
pub(in super::super) struct Declines {
    /// Most frequent first.
    pub(in super::super) reasons: Vec<Decline>,
    /// Number of payments that were examined.
    pub(in super::super) looked_at: i64,
    /// If there are older payments that were not examined: only ids before this one.
    pub(in super::super) next: Option<String>,
}

/// The declines among the newest payments of a range of ids, at most 5,000. `now` is the time of the query.
///
/// Of many merchants, the 5,000th may be found only about: the span of time ends where at least half as many were examined, unless
/// that would take too many statements.
pub(in super::super) async fn list_declines(
    pool: &PgPool,
    merchant_id: Option<&str>,
    ids: Ids,
    now: DateTime<Utc>,
) -> sqlx::Result<Declines> {
    let merchants = merchants_asked(pool, merchant_id).await?;
    let mut windows = Windows::new(&merchants, ids, AT_ONCE, now);
    let mut of_widest = None;
    while let Some(window) = windows.next() {
        let (examined, reasons) = look_at(pool, &merchants, &window).await?;
        if !windows.was_read(&examined) {
            continue;
        }
        let widens = windows.widen(&examined);
        of_widest = Some((examined, reasons));
        if !widens {
            break;
        }
    }
    let (examined, reasons) = of_widest.unwrap_or_default();
    windows.go_on(&examined);
    Ok(Declines {
        reasons,
        looked_at: examined.rows,
        next: windows.rest(),
    })
}

async fn look_at(
    pool: &PgPool,
    merchants: &Merchants,
    window: &Window,
) -> sqlx::Result<(Examined, Vec<Decline>)> {
    let rows = sqlx::query!(
        r#"
        with looked_at as (
            select
                merchant_id,
                payment_id,
                state,
                failure_code,
                failure_message,
                created_at
            from payments
            where ($1::text is null or merchant_id = $1)
                and ($2::text[] is null or merchant_id = any($2))
                and payment_id >= $3
                and payment_id < $4
            order by
                merchant_id desc,
                payment_id desc
            limit $5
        ),
        examined as (
            select
                count(*) as payments,
                min(payment_id) as oldest
            from looked_at
        ),
        declined as (
            select
                failure_code,
                (array_agg(failure_message order by payment_id desc))[1] as failure_message,
                count(*) as declines,
                count(distinct merchant_id) as merchants,
                max(created_at) as latest_at
            from looked_at
            where state = 'FAILED'
            group by failure_code
            order by count(*) desc, failure_code
            limit $6
        )
        select
            d.failure_code as "code?",
            d.failure_message as "message?",
            d.declines as "declines?",
            d.merchants as "merchants?",
            d.latest_at as "latest_at?",
            e.payments as "examined!",
            e.oldest
        from examined e
        left join declined d
            on true
        order by d.declines desc, d.failure_code
        "#,
        merchants.one(),
        merchants.many(),
        window.from,
        window.before,
        window.limit,
        REASONS,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    let examined = rows.first().map_or_else(Examined::default, |row| Examined {
        rows: row.examined,
        oldest: row.oldest.clone(),
    });
    let reasons = rows.into_iter().filter_map(|row| {
        Some(Decline {
            code: row.code?,
            message: row.message?,
            declines: row.declines?,
            merchants: row.merchants?,
            latest_at: row.latest_at?,
        })
    });
    Ok((examined, reasons.collect()))
}
