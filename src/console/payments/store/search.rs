//! The search for payments by what an operator knows about them.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::database::{self, Bounded};

use super::super::super::store::{Merchants, merchants_asked};
use super::super::Listed;
use super::windows::{AT_ONCE, Examined, Ids, Window, Windows};

/// Maximum number of payments that are examined for one page, so that a page of rare payments costs no more.
const LOOKED_AT: i64 = 20_000;

/// A payment that something else names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Named {
    pub(in super::super) merchant_id: String,
    pub(in super::super) payment_id: String,
}

/// The conditions of the list. All of them must hold.
#[derive(Clone, Debug)]
pub(in super::super) struct Filter {
    pub(in super::super) merchant_id: Option<String>,
    /// The range of a prefix, of a time, and of what the previous pages left.
    pub(in super::super) ids: Ids,
    /// Only these payments.
    pub(in super::super) named: Option<Vec<Named>>,
    /// The state that clients see.
    pub(in super::super) state: Option<String>,
    /// Only these amounts: minor units with their currency.
    pub(in super::super) amounts: Option<(Vec<i64>, Vec<String>)>,
    pub(in super::super) currency: Option<String>,
    /// The client's id of the customer, for which there is an index.
    pub(in super::super) customer_id: Option<String>,
    /// A customer's email address, in any case, or an id that looks like one.
    pub(in super::super) customer_email: Option<String>,
    pub(in super::super) last4: Option<String>,
    /// The beginning of the gateway's id.
    pub(in super::super) transaction: Option<String>,
    pub(in super::super) decline_code: Option<String>,
}

impl Filter {
    /// Whether most of the examined payments may not match.
    fn is_selective(&self) -> bool {
        self.state.is_some()
            || self.amounts.is_some()
            || self.currency.is_some()
            || self.customer_email.is_some()
            || self.last4.is_some()
            || self.transaction.is_some()
            || self.decline_code.is_some()
    }

    /// Whether an index finds the payments that may match, and no others.
    fn has_an_index(&self) -> bool {
        self.named.is_some() || self.customer_id.is_some()
    }

    async fn merchants(&self, pool: &PgPool) -> sqlx::Result<Merchants> {
        match (&self.merchant_id, &self.named) {
            (None, Some(named)) => {
                let mut of_named: Vec<String> =
                    named.iter().map(|one| one.merchant_id.clone()).collect();
                of_named.sort_unstable();
                of_named.dedup();
                Ok(Merchants::Many(of_named))
            }
            (merchant_id, _) => merchants_asked(pool, merchant_id.as_deref()).await,
        }
    }
}

/// A part of a list.
pub(in super::super) struct Found {
    /// Newest first.
    pub(in super::super) payments: Vec<Listed>,
    /// Where it continues, if it does: only ids before this one.
    pub(in super::super) next: Option<String>,
    /// There were more payments than were examined.
    pub(in super::super) was_cut_short: bool,
}

/// Payments, newest first, at most `rows`. `now` is the time of the query.
pub(in super::super) async fn search_payments(
    pool: &PgPool,
    filter: &Filter,
    rows: usize,
    now: DateTime<Utc>,
) -> sqlx::Result<Found> {
    let a_page = i64::try_from(rows).unwrap_or(i64::MAX).saturating_add(1);
    let merchants = filter.merchants(pool).await?;
    let to_examine = match filter.is_selective() {
        true => AT_ONCE,
        false => a_page,
    };
    let mut windows = Windows::new(&merchants, filter.ids.clone(), to_examine, now);
    if filter.has_an_index() {
        windows = windows.whole_first();
    }
    let mut payments = Vec::new();
    let mut looked_at = 0;
    while looked_at < LOOKED_AT
        && let Some(window) = windows.next()
    {
        let (examined, matching) = look_at(pool, &merchants, filter, &window, a_page).await?;
        if !windows.was_read(&examined) {
            continue;
        }
        windows.go_on(&examined);
        payments.extend(matching);
        looked_at += examined.rows;
        if payments.len() > rows {
            payments.truncate(rows);
            return Ok(Found {
                next: payments.last().map(|last| last.payment_id.clone()),
                payments,
                was_cut_short: false,
            });
        }
    }
    let next = windows.rest();
    Ok(Found {
        payments,
        was_cut_short: next.is_some(),
        next,
    })
}

#[expect(clippy::too_many_lines, reason = "one statement")]
async fn look_at(
    pool: &PgPool,
    merchants: &Merchants,
    filter: &Filter,
    window: &Window,
    limit: i64,
) -> sqlx::Result<(Examined, Vec<Listed>)> {
    let (minors, currencies) = filter.amounts.clone().unzip();
    let named = filter.named.as_ref().map(|named| {
        let ids = named.iter().map(|one| one.payment_id.clone());
        ids.collect::<Vec<_>>()
    });
    let seen = sqlx::query!(
        r#"
        with looked_at as (
            select
                merchant_id,
                payment_id,
                idempotency_key,
                state,
                pending_operation,
                currency,
                amount_minor,
                amount_captured_minor,
                amount_refunded_minor,
                gateway_transaction_id,
                card_last4,
                customer_id,
                customer_email,
                failure_code,
                failure_message,
                created_at
            from payments
            where ($1::text is null or merchant_id = $1)
                and ($2::text[] is null or merchant_id = any($2))
                and payment_id >= $3
                and payment_id < $4
                and ($5::text[] is null or payment_id = any($5))
                and ($6::text is null or customer_id = $6)
            order by
                merchant_id desc,
                payment_id desc
            limit $7
        ),
        examined as (
            select
                count(*) as payments,
                min(payment_id) as oldest
            from looked_at
        )
        select
            l.merchant_id as "merchant_id?",
            l.payment_id as "payment_id?",
            l.idempotency_key as "idempotency_key?",
            l.state as "state?",
            l.pending_operation,
            l.currency as "currency?",
            l.amount_minor as "amount_minor?",
            l.amount_captured_minor as "captured_minor?",
            l.amount_refunded_minor as "refunded_minor?",
            l.failure_code,
            l.failure_message,
            l.created_at as "created_at?",
            e.payments as "examined!",
            e.oldest
        from examined e
        left join looked_at l
            on (
                $8::text is null
                or $8 = case when l.pending_operation is null then l.state else 'PROCESSING' end
            )
            and (
                $9::bigint[] is null
                or (l.amount_minor, l.currency) in (
                    select wanted.minor, wanted.currency
                    from unnest($9, $10::text[]) as wanted (minor, currency)
                )
            )
            and ($11::text is null or l.currency = $11)
            and ($12::text is null or lower(l.customer_email) = lower($12) or l.customer_id = $12)
            and ($13::text is null or l.card_last4 = $13)
            and ($14::text is null or starts_with(l.gateway_transaction_id, $14))
            and ($15::text is null or l.failure_code = $15)
        order by l.payment_id desc
        limit $16
        "#,
        merchants.one(),
        merchants.many(),
        window.from,
        window.before,
        named.as_deref(),
        filter.customer_id,
        window.limit,
        filter.state,
        minors.as_deref(),
        currencies.as_deref(),
        filter.currency,
        filter.customer_email,
        filter.last4,
        filter.transaction,
        filter.decline_code,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    let examined = seen.first().map_or_else(Examined::default, |row| Examined {
        rows: row.examined,
        oldest: row.oldest.clone(),
    });
    let payments = seen.into_iter().filter_map(|row| {
        Some(Listed {
            merchant_id: row.merchant_id?,
            payment_id: row.payment_id?,
            idempotency_key: row.idempotency_key?,
            state: row.state?,
            pending_operation: row.pending_operation,
            currency: row.currency?,
            amount_minor: row.amount_minor?,
            captured_minor: row.captured_minor?,
            refunded_minor: row.refunded_minor?,
            failure_code: row.failure_code,
            failure_message: row.failure_message,
            created_at: row.created_at?,
        })
    });
    Ok((examined, payments.collect()))
}

/// The payments that this key made or refunded: at most one of each for a merchant.
pub(in super::super) async fn find_payments_of_key(
    pool: &PgPool,
    merchant_id: Option<&str>,
    key: &str,
    limit: i64,
) -> sqlx::Result<Vec<Named>> {
    let merchants = merchants_asked(pool, merchant_id).await?;
    sqlx::query_as!(
        Named,
        r#"
        select
            merchant_id as "merchant_id!",
            payment_id as "payment_id!"
        from payments
        where ($1::text is null or merchant_id = $1)
            and ($2::text[] is null or merchant_id = any($2))
            and idempotency_key = $3
        union
        select
            merchant_id,
            payment_id
        from refunds
        where ($1::text is null or merchant_id = $1)
            and ($2::text[] is null or merchant_id = any($2))
            and idempotency_key = $3
        order by "payment_id!" desc
        limit $4
        "#,
        merchants.one(),
        merchants.many(),
        key,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await
}
