//! The SQL of merchants: the ones of a query, and their list.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::database::{self, Bounded};

/// The merchants of a query: the named one, or all.
///
/// Statements take them as an array, so that PostgreSQL knows their number when it plans: it assumes hundreds of rows for a table
/// of merchants that was never analyzed.
pub(super) async fn merchants_asked(
    pool: &PgPool,
    merchant_id: Option<&str>,
) -> sqlx::Result<Vec<String>> {
    match merchant_id {
        Some(merchant_id) => Ok(vec![merchant_id.to_owned()]),
        None => {
            sqlx::query_scalar!("select merchant_id from merchants")
                .fetch_all(&mut *database::acquire(pool).await?)
                .bounded()
                .await
        }
    }
}

/// A merchant's line in a list.
#[derive(Clone, Debug)]
pub(super) struct MerchantListed {
    pub(super) merchant_id: String,
    pub(super) name: String,
    pub(super) created_at: DateTime<Utc>,
    /// The newest payment, if there is one.
    pub(super) payment_id: Option<String>,
    pub(super) paid_at: Option<DateTime<Utc>>,
}

/// Merchants with this prefix of their id, after `after`, by id.
pub(super) async fn list_merchants(
    pool: &PgPool,
    beginning: &str,
    after: &str,
    limit: i64,
) -> sqlx::Result<Vec<MerchantListed>> {
    sqlx::query_as!(
        MerchantListed,
        r#"
        select
            m.merchant_id,
            m.name,
            m.created_at,
            p.payment_id as "payment_id?",
            p.created_at as "paid_at?"
        from (
            select
                merchant_id,
                name,
                created_at
            from merchants
            where merchant_id > $1
                and starts_with(merchant_id, $2)
            order by merchant_id
            limit $3
        ) as m
        left join lateral (
            select
                payment_id,
                created_at
            from payments
            where merchant_id = m.merchant_id
            order by payment_id desc
            limit 1
        ) as p
            on true
        order by m.merchant_id
        "#,
        after,
        beginning,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await
}
