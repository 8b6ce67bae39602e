//! The search for payments by what an operator knows about them.

use sqlx::PgPool;

use crate::database::{self, Bounded};

use super::super::super::store::merchants_asked;
use super::super::Listed;
use super::window_of_each;

/// Maximum number of payments that are examined for one page, so that a page of rare payments costs no more.
const LOOKED_AT: i64 = 20_000;

/// The conditions of the list. All of them must hold.
#[derive(Clone, Debug)]
pub(in super::super) struct Filter {
    pub(in super::super) merchant_id: Option<String>,
    /// Only ids from this one on: the start of a prefix or of a time.
    pub(in super::super) from: String,
    /// Only ids before this one: the end of a time or of the previous page.
    pub(in super::super) before: String,
    /// Only these ids.
    pub(in super::super) ids: Option<Vec<String>>,
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

/// Payments, newest first, at most `rows`.
///
/// A window of each merchant's newest payments is examined. There may be more behind a full window, so nothing older than the
/// newest end of a full window is shown, and the next page begins there.
pub(in super::super) async fn search_payments(
    pool: &PgPool,
    filter: &Filter,
    rows: usize,
) -> sqlx::Result<Found> {
    let a_page = i64::try_from(rows).unwrap_or(i64::MAX).saturating_add(1);
    let merchants = merchants_asked(pool, filter.merchant_id.as_deref()).await?;
    let window = match filter.is_selective() {
        true => window_of_each(&merchants, a_page),
        false => a_page,
    };
    let mut found = Found {
        payments: Vec::new(),
        next: None,
        was_cut_short: false,
    };
    let mut before = filter.before.clone();
    let mut looked_at = 0;
    loop {
        let look = look_at(pool, &merchants, filter, &before, window, a_page).await?;
        found.payments.extend(look.payments);
        looked_at += look.looked_at;
        if found.payments.len() > rows {
            found.payments.truncate(rows);
            found.next = found.payments.last().map(|last| last.payment_id.clone());
            return Ok(found);
        }
        match look.frontier {
            Some(frontier) if looked_at < LOOKED_AT => before = frontier,
            frontier => {
                found.was_cut_short = frontier.is_some();
                found.next = frontier;
                return Ok(found);
            }
        }
    }
}

/// The result of one statement.
struct Look {
    payments: Vec<Listed>,
    /// Number of rows that it examined, most of which may not match.
    looked_at: i64,
    /// `None` if there are no older rows.
    frontier: Option<String>,
}

#[expect(clippy::too_many_lines, reason = "one statement")]
async fn look_at(
    pool: &PgPool,
    merchants: &[String],
    filter: &Filter,
    before: &str,
    window: i64,
    limit: i64,
) -> sqlx::Result<Look> {
    let (minors, currencies) = filter.amounts.clone().unzip();
    let seen = sqlx::query!(
        r#"
        with looked_at as (
            select p.*
            from unnest($1::text[]) as m (merchant_id)
            cross join lateral (
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
                where merchant_id = m.merchant_id
                    and payment_id >= $2
                    and payment_id < $3
                    and ($4::text[] is null or payment_id = any($4))
                    and ($5::text is null or customer_id = $5)
                order by payment_id desc
                limit $6
            ) as p
        ),
        frontier as (
            select max(window_end) as payment_id
            from (
                select min(payment_id) as window_end
                from looked_at
                group by merchant_id
                having count(*) >= $6
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
            l.amount_captured_minor as "captured_minor?",
            l.amount_refunded_minor as "refunded_minor?",
            l.failure_code,
            l.failure_message,
            l.created_at as "created_at?",
            f.payment_id as frontier,
            (select count(*) from looked_at) as "looked_at!"
        from frontier f
        left join looked_at l
            on (f.payment_id is null or l.payment_id >= f.payment_id)
            and (
                $7::text is null
                or $7 = case when l.pending_operation is null then l.state else 'PROCESSING' end
            )
            and (
                $8::bigint[] is null
                or (l.amount_minor, l.currency) in (
                    select wanted.minor, wanted.currency
                    from unnest($8, $9::text[]) as wanted (minor, currency)
                )
            )
            and ($10::text is null or l.currency = $10)
            and ($11::text is null or lower(l.customer_email) = lower($11) or l.customer_id = $11)
            and ($12::text is null or l.card_last4 = $12)
            and ($13::text is null or starts_with(l.gateway_transaction_id, $13))
            and ($14::text is null or l.failure_code = $14)
        order by l.payment_id desc
        limit $15
        "#,
        merchants,
        filter.from,
        before,
        filter.ids.as_deref(),
        filter.customer_id,
        window,
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
    let first = seen.first();
    let frontier = first.and_then(|row| row.frontier.clone());
    let looked_at = first.map_or(0, |row| row.looked_at);
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
    Ok(Look {
        payments: payments.collect(),
        looked_at,
        frontier,
    })
}

/// The ids of the payments that this key made or refunded: at most one of each for a merchant.
pub(in super::super) async fn find_payments_of_key(
    pool: &PgPool,
    merchant_id: Option<&str>,
    key: &str,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    let merchants = merchants_asked(pool, merchant_id).await?;
    sqlx::query_scalar!(
        r#"
        select of_key.payment_id as "payment_id!"
        from unnest($1::text[]) as m (merchant_id)
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
        order by of_key.payment_id desc
        limit $3
        "#,
        &merchants,
        key,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await
}
