//! The SQL of the console's pages of payments.
//!
//! No index serves the console alone. Primary keys begin with the merchant, so what is asked of all merchants is asked of each
//! one by a look into its own part of an index (`cross join lateral`), and each look has a limit.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::Listed;
use crate::database::{self, Bounded};
use crate::idempotency::ScopedKey;

/// So many payments are looked at for one page where most of them may not be shown: a page of a rare state costs no more.
const LOOKED_AT: i64 = 20_000;

/// What to list.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) merchant_id: Option<String>,
    pub(super) state: Option<String>,
    /// Only those made before this one.
    pub(super) before: Option<String>,
}

/// Some of a list.
pub(super) struct Found {
    /// Newest first.
    pub(super) payments: Vec<Listed>,
    /// Where it goes on, where it may.
    pub(super) next: Option<String>,
    /// More was there than was looked at.
    pub(super) was_cut_short: bool,
}

/// Payments newest first, `rows` at most.
///
/// Of each merchant a window of its newest is looked at. Where a window is full there may be more behind it, so nothing older
/// than the newest end of a full window is shown: the list goes on from there.
pub(super) async fn list_payments(
    pool: &PgPool,
    filter: &Filter,
    rows: usize,
) -> sqlx::Result<Found> {
    let mut connection = database::acquire(pool).await?;
    let limit = i64::try_from(rows).unwrap_or(i64::MAX) + 1;
    let found = sqlx::query!(
        r#"
        with merchants_asked as (
            select merchant_id
            from merchants
            where $1::text is null
                or merchant_id = $1
        ),
        window_of_each as (
            select
                case
                    when $2::text is null then $4::bigint
                    else greatest($4, $5::bigint / greatest(count(*), 1))
                end as rows
            from merchants_asked
        ),
        looked_at as (
            select p.*
            from merchants_asked m
            cross join lateral (
                select
                    merchant_id,
                    payment_id,
                    idempotency_key,
                    state,
                    pending_operation,
                    currency,
                    amount_minor,
                    created_at
                from payments
                where merchant_id = m.merchant_id
                    and ($3::text is null or payment_id < $3)
                order by payment_id desc
                limit (select rows from window_of_each)
            ) as p
        ),
        frontier as (
            select max(window_end) as payment_id
            from (
                select min(payment_id) as window_end
                from looked_at
                group by merchant_id
                having count(*) >= (select rows from window_of_each)
            ) as full_windows
        )
        select
            l.merchant_id as "merchant_id?",
            l.payment_id as "payment_id?",
            l.idempotency_key as "idempotency_key?",
            l.state as "state?",
            l.pending_operation,
            l.currency as "currency?",
            l.amount_minor as "amount_minor?",
            l.created_at as "created_at?",
            f.payment_id as frontier
        from frontier f
        left join looked_at l
            on (f.payment_id is null or l.payment_id >= f.payment_id)
            and (
                $2::text is null
                or $2 = case when l.pending_operation is null then l.state else 'PROCESSING' end
            )
        order by l.payment_id desc
        limit $4
        "#,
        filter.merchant_id,
        filter.state,
        filter.before,
        limit,
        LOOKED_AT,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await?;
    let frontier = found.first().and_then(|row| row.frontier.clone());
    let mut payments: Vec<Listed> = found
        .into_iter()
        .filter_map(|row| {
            Some(Listed {
                merchant_id: row.merchant_id?,
                payment_id: row.payment_id?,
                idempotency_key: row.idempotency_key?,
                state: row.state?,
                pending_operation: row.pending_operation,
                currency: row.currency?,
                amount_minor: row.amount_minor?,
                created_at: row.created_at?,
            })
        })
        .collect();
    let is_full = payments.len() > rows;
    payments.truncate(rows);
    let last = payments.last().map(|last| last.payment_id.clone());
    Ok(Found {
        payments,
        was_cut_short: !is_full && frontier.is_some(),
        next: if is_full { last } else { frontier },
    })
}

/// The payment of this id; of whichever merchant, where none is named.
pub(super) async fn find_by_id(
    pool: &PgPool,
    merchant_id: Option<&str>,
    payment_id: &str,
) -> sqlx::Result<Vec<Listed>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        Listed,
        r#"
        select
            p.merchant_id as "merchant_id!",
            p.payment_id as "payment_id!",
            p.idempotency_key as "idempotency_key!",
            p.state as "state!",
            p.pending_operation,
            p.currency as "currency!",
            p.amount_minor as "amount_minor!",
            p.created_at as "created_at!"
        from merchants m
        cross join lateral (
            select *
            from payments
            where merchant_id = m.merchant_id
                and payment_id = $2
            limit 1
        ) as p
        where $1::text is null
            or m.merchant_id = $1
        "#,
        merchant_id,
        payment_id,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// The payments that this key made, or gave something back of.
pub(super) async fn find_by_key(
    pool: &PgPool,
    merchant_id: Option<&str>,
    key: &str,
    limit: i64,
) -> sqlx::Result<Vec<Listed>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        Listed,
        r#"
        select
            p.merchant_id as "merchant_id!",
            p.payment_id as "payment_id!",
            p.idempotency_key as "idempotency_key!",
            p.state as "state!",
            p.pending_operation,
            p.currency as "currency!",
            p.amount_minor as "amount_minor!",
            p.created_at as "created_at!"
        from merchants m
        cross join lateral (
            select payment_id
            from payments
            where merchant_id = m.merchant_id
                and idempotency_key = $2
            union
            select payment_id
            from refunds
            where merchant_id = m.merchant_id
                and idempotency_key = $2
        ) as of_key
        cross join lateral (
            select *
            from payments
            where merchant_id = m.merchant_id
                and payment_id = of_key.payment_id
            limit 1
        ) as p
        where $1::text is null
            or m.merchant_id = $1
        order by p.payment_id desc
        limit $3
        "#,
        merchant_id,
        key,
        limit,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// A refund as its payment's page shows it.
#[derive(Clone, Debug)]
pub(super) struct RefundOfPayment {
    pub(super) refund_id: String,
    pub(super) idempotency_key: String,
    pub(super) state: String,
    pub(super) amount_minor: i64,
    pub(super) reason: Option<String>,
    pub(super) gateway_refund_id: Option<String>,
    pub(super) failure_code: Option<String>,
    pub(super) failure_message: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
}

/// A payment's refunds, oldest first.
pub(super) async fn list_refunds(
    pool: &PgPool,
    merchant_id: &str,
    payment_id: &str,
    limit: i64,
) -> sqlx::Result<Vec<RefundOfPayment>> {
    let mut connection = database::acquire(pool).await?;
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
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// What a payment's own key says of how it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Making {
    pub(super) attempt: i32,
    pub(super) completed_at: Option<DateTime<Utc>>,
}

/// The record of the key that made a payment, while it is remembered.
pub(super) async fn find_making(
    pool: &PgPool,
    scope: &ScopedKey,
    payment_id: &str,
) -> sqlx::Result<Option<Making>> {
    let mut connection = database::acquire(pool).await?;
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
    .fetch_optional(&mut *connection)
    .bounded()
    .await
}

/// A key that is at work on a payment.
#[derive(Clone, Debug)]
pub(super) struct AtWork {
    pub(super) operation: String,
    pub(super) key: String,
    pub(super) claimed_at: DateTime<Utc>,
}

/// The captures and cancels of a payment that are under way.
pub(super) async fn list_at_work(
    pool: &PgPool,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Vec<AtWork>> {
    let mut connection = database::acquire(pool).await?;
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
    .fetch_all(&mut *connection)
    .bounded()
    .await
}
