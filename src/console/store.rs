//! The SQL of merchants: the ones of a query, and their list.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use crate::database::{self, Bounded};

/// The merchants of a query.
///
/// Statements take them as two parameters, one of which is null: `($1::text is null or merchant_id = $1)` and
/// `($2::text[] is null or merchant_id = any($2))`. So a primary key serves both kinds. For one merchant, its order is the order of
/// the rest of the key. For an array, PostgreSQL knows the number of merchants when it plans; it assumes hundreds of rows for a
/// table of merchants that was never analyzed.
#[derive(Clone, Debug)]
pub(super) enum Merchants {
    One(String),
    Many(Vec<String>),
}

impl Merchants {
    pub(super) fn one(&self) -> Option<&str> {
        match self {
            Self::One(merchant) => Some(merchant),
            Self::Many(_) => None,
        }
    }

    pub(super) fn many(&self) -> Option<&[String]> {
        match self {
            Self::One(_) => None,
            Self::Many(merchants) => Some(merchants),
        }
    }
}

/// The merchants of a query: the named one, or all.
pub(super) async fn merchants_asked(
    pool: &PgPool,
    merchant_id: Option<&str>,
) -> sqlx::Result<Merchants> {
    if let Some(merchant_id) = merchant_id {
        return Ok(Merchants::One(merchant_id.to_owned()));
    }
    let mut all = sqlx::query_scalar!("select merchant_id from merchants")
        .fetch_all(&mut *database::acquire(pool).await?)
        .bounded()
        .await?;
    Ok(match all.len() {
        1 => Merchants::One(all.remove(0)),
        _ => Merchants::Many(all),
    })
}

/// A merchant's line in a list.
#[derive(Clone, Debug)]
pub(super) struct MerchantListed {
    pub(super) merchant_id: String,
    pub(super) name: String,
    pub(super) created_at: DateTime<Utc>,
    pub(super) newest_payment: Option<NewestPayment>,
}

/// The newest payment of a merchant.
#[derive(Clone, Debug)]
pub(super) struct NewestPayment {
    pub(super) payment_id: String,
    pub(super) created_at: DateTime<Utc>,
}

/// Merchants with this prefix of their id, after `after`, by id.
///
/// Their newest payments are read with a statement for each: no one statement finds them by the end of each merchant's part of the
/// primary key on both PostgreSQL and Citus.
pub(super) async fn list_merchants(
    pool: &PgPool,
    beginning: &str,
    after: &str,
    limit: i64,
) -> sqlx::Result<Vec<MerchantListed>> {
    let mut connection = database::acquire(pool).await?;
    let rows = sqlx::query!(
        r#"
        select
            merchant_id,
            name,
            created_at
        from merchants
        where merchant_id > $1
            and starts_with(merchant_id, $2)
        order by merchant_id
        limit $3
        "#,
        after,
        beginning,
        limit,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await?;
    let mut merchants = Vec::with_capacity(rows.len());
    for row in rows {
        let newest_payment = find_newest_payment(&mut connection, &row.merchant_id).await?;
        merchants.push(MerchantListed {
            merchant_id: row.merchant_id,
            name: row.name,
            created_at: row.created_at,
            newest_payment,
        });
    }
    Ok(merchants)
}

async fn find_newest_payment(
    connection: &mut PgConnection,
    merchant_id: &str,
) -> sqlx::Result<Option<NewestPayment>> {
    sqlx::query_as!(
        NewestPayment,
        r#"
        select
            payment_id,
            created_at
        from payments
        where merchant_id = $1
        order by payment_id desc
        limit 1
        "#,
        merchant_id,
    )
    .fetch_optional(connection)
    .bounded()
    .await
}
