//! The SQL of the console's pages of keys. Every query finds its rows by a primary key, in `unsettled_keys`, which is small, or among
//! a limited number of the newest by `expires_at`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::super::store::merchants_asked;
use super::{KeyView, Unsettled};
use crate::database::{self, Bounded};
use crate::idempotency::ScopedKey;
use crate::payments::Operation;

/// One key.
pub(super) async fn find_key(pool: &PgPool, scope: &ScopedKey) -> sqlx::Result<Option<KeyView>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        KeyView,
        r#"
        select
            merchant_id,
            operation,
            key,
            state,
            left(encode(fingerprint, 'hex'), 16) as "fingerprint_prefix!",
            attempt,
            owner,
            lease_expires_at,
            coalesce(state = 'PROCESSING' and lease_expires_at < now(), false) as "is_left_behind!",
            resource_id,
            response_status,
            created_at,
            completed_at,
            expires_at
        from idempotency_keys
        where merchant_id = $1
            and operation = $2
            and key = $3
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
    )
    .fetch_optional(&mut *connection)
    .bounded()
    .await
}

/// Sorts after every key.
const END_OF_KEYS: char = '\u{7f}';

/// The keys with this prefix, in the order of their names, of one merchant or of all. Each merchant and operation is one range of the
/// primary key.
pub(super) async fn find_keys(
    pool: &PgPool,
    merchant_id: Option<&str>,
    beginning: &str,
    state: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<KeyView>> {
    let merchants = merchants_asked(pool, merchant_id).await?;
    let mut connection = database::acquire(pool).await?;
    let operations: Vec<String> = Operation::ALL
        .iter()
        .map(|operation| operation.as_str().to_owned())
        .collect();
    sqlx::query_as!(
        KeyView,
        r#"
        select
            k.merchant_id as "merchant_id!",
            k.operation as "operation!",
            k.key as "key!",
            k.state as "state!",
            left(encode(k.fingerprint, 'hex'), 16) as "fingerprint_prefix!",
            k.attempt as "attempt!",
            k.owner as "owner!",
            k.lease_expires_at,
            coalesce(k.state = 'PROCESSING' and k.lease_expires_at < now(), false) as "is_left_behind!",
            k.resource_id,
            k.response_status,
            k.created_at as "created_at!",
            k.completed_at,
            k.expires_at as "expires_at!"
        from unnest($1::text[]) as m (merchant_id)
        cross join unnest($4::text[]) as o (operation)
        cross join lateral (
            select *
            from idempotency_keys
            where merchant_id = m.merchant_id
                and operation = o.operation
                and key >= $2
                and key < $3
            order by key
            limit $6
        ) as k
        where $5::text is null
            or k.state = $5
        order by
            k.key,
            k.created_at desc
        limit $6
        "#,
        &merchants,
        beginning,
        format!("{beginning}{END_OF_KEYS}"),
        &operations,
        state,
        limit,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// The oldest keys in `PROCESSING`: all of them, the abandoned ones, or the ones with an owner.
pub(super) async fn list_unsettled(
    pool: &PgPool,
    merchant_id: Option<&str>,
    left_behind: Option<bool>,
    limit: i64,
) -> sqlx::Result<Vec<KeyView>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        KeyView,
        r#"
        select
            k.merchant_id,
            k.operation,
            k.key,
            k.state,
            left(encode(k.fingerprint, 'hex'), 16) as "fingerprint_prefix!",
            k.attempt,
            k.owner,
            k.lease_expires_at,
            coalesce(k.lease_expires_at < now(), false) as "is_left_behind!",
            k.resource_id,
            k.response_status,
            k.created_at,
            k.completed_at,
            k.expires_at
        from unsettled_keys u
        join idempotency_keys k
            on k.merchant_id = u.merchant_id
            and k.operation = u.operation
            and k.key = u.key
        where k.state = 'PROCESSING'
            and ($1::text is null or u.merchant_id = $1)
            and ($2::boolean is null or (k.lease_expires_at < now()) = $2)
        order by u.claimed_at
        limit $3
        "#,
        merchant_id,
        left_behind,
        limit,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// Returns their number, and the age of the oldest.
pub(super) async fn count_unsettled(
    pool: &PgPool,
    merchant_id: Option<&str>,
) -> sqlx::Result<Unsettled> {
    let mut connection = database::acquire(pool).await?;
    let row = sqlx::query!(
        r#"
        select
            count(*) as "processing!",
            count(*) filter (where k.lease_expires_at < now()) as "left_behind!",
            coalesce(extract(epoch from now() - min(u.claimed_at)), 0)::float8 as "oldest_seconds!"
        from unsettled_keys u
        left join idempotency_keys k
            on k.merchant_id = u.merchant_id
            and k.operation = u.operation
            and k.key = u.key
        where $1::text is null
            or u.merchant_id = $1
        "#,
        merchant_id,
    )
    .fetch_one(&mut *connection)
    .bounded()
    .await?;
    Ok(Unsettled {
        processing: row.processing.unsigned_abs(),
        left_behind: row.left_behind.unsigned_abs(),
        oldest: Duration::try_from_secs_f64(row.oldest_seconds).unwrap_or_default(),
    })
}

/// The key after which a list of the newest continues.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    pub(super) expires_at: DateTime<Utc>,
    pub(super) merchant_id: String,
    pub(super) operation: String,
    pub(super) key: String,
}

/// Some of the newest keys.
pub(super) struct NewestKeys {
    /// Latest first.
    pub(super) keys: Vec<KeyView>,
    /// The last key that was examined, if there may be more.
    pub(super) edge: Option<Newest>,
}

/// Maximum number of keys that are examined for one page.
pub(super) const LOOKED_AT: i64 = 5_000;

/// The keys in a final state among the newest [`LOOKED_AT`] after `after`. They are found by the clean-up's index on the time of
/// expiry. All keys are kept for the same time, so this is the order of their creation.
#[expect(clippy::too_many_lines, reason = "one statement")]
pub(super) async fn list_newest(
    pool: &PgPool,
    merchant_id: Option<&str>,
    state: Option<&str>,
    after: &Newest,
    limit: i64,
) -> sqlx::Result<NewestKeys> {
    let rows = sqlx::query!(
        r#"
        with looked_at as (
            select
                merchant_id,
                operation,
                key,
                state,
                fingerprint,
                attempt,
                owner,
                lease_expires_at,
                resource_id,
                response_status,
                created_at,
                completed_at,
                expires_at
            from idempotency_keys
            where expires_at <= $3
                and (expires_at, merchant_id, operation, key) < ($3, $4, $5, $6)
            order by
                expires_at desc,
                merchant_id desc,
                operation desc,
                key desc
            limit $7
        ),
        edge as (
            select
                expires_at,
                merchant_id,
                operation,
                key
            from looked_at
            where (select count(*) from looked_at) >= $7
            order by
                expires_at,
                merchant_id,
                operation,
                key
            limit 1
        )
        select
            k.merchant_id as "merchant_id?",
            k.operation as "operation?",
            k.key as "key?",
            k.state as "state?",
            left(encode(k.fingerprint, 'hex'), 16) as "fingerprint_prefix?",
            k.attempt as "attempt?",
            k.owner as "owner?",
            k.lease_expires_at,
            coalesce(k.state = 'PROCESSING' and k.lease_expires_at < now(), false) as "is_left_behind!",
            k.resource_id,
            k.response_status,
            k.created_at as "created_at?",
            k.completed_at,
            k.expires_at as "expires_at?",
            e.expires_at as "edge_expires_at?",
            e.merchant_id as "edge_merchant_id?",
            e.operation as "edge_operation?",
            e.key as "edge_key?"
        from (select 1) as one
        left join edge e
            on true
        left join looked_at k
            on ($1::text is null or k.merchant_id = $1)
            and ($2::text is null or k.state = $2)
        order by
            k.expires_at desc,
            k.merchant_id desc,
            k.operation desc,
            k.key desc
        limit $8
        "#,
        merchant_id,
        state,
        after.expires_at,
        after.merchant_id,
        after.operation,
        after.key,
        LOOKED_AT,
        limit,
    )
    .fetch_all(&mut *database::acquire(pool).await?)
    .bounded()
    .await?;
    let edge = rows.first().and_then(|row| {
        Some(Newest {
            expires_at: row.edge_expires_at?,
            merchant_id: row.edge_merchant_id.clone()?,
            operation: row.edge_operation.clone()?,
            key: row.edge_key.clone()?,
        })
    });
    let keys = rows.into_iter().filter_map(|row| {
        Some(KeyView {
            merchant_id: row.merchant_id?,
            operation: row.operation?,
            key: row.key?,
            state: row.state?,
            fingerprint_prefix: row.fingerprint_prefix?,
            attempt: row.attempt?,
            owner: row.owner?,
            lease_expires_at: row.lease_expires_at,
            is_left_behind: row.is_left_behind,
            resource_id: row.resource_id,
            response_status: row.response_status,
            created_at: row.created_at?,
            completed_at: row.completed_at,
            expires_at: row.expires_at?,
        })
    });
    Ok(NewestKeys {
        keys: keys.collect(),
        edge,
    })
}
