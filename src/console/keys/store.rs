//! The SQL of the console's pages of keys. All of it finds its rows by a primary key or in `unsettled_keys`, which is small.

use std::time::Duration;

use sqlx::PgPool;

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

/// The keys of this name: one merchant's, or each one's, by a look into the primary key for each operation.
pub(super) async fn find_keys(
    pool: &PgPool,
    merchant_id: Option<&str>,
    key: &str,
    limit: i64,
) -> sqlx::Result<Vec<KeyView>> {
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
        from merchants m
        cross join unnest($3::text[]) as o (operation)
        cross join lateral (
            select *
            from idempotency_keys
            where merchant_id = m.merchant_id
                and operation = o.operation
                and key = $2
            limit 1
        ) as k
        where $1::text is null
            or m.merchant_id = $1
        order by k.created_at desc
        limit $4
        "#,
        merchant_id,
        key,
        &operations,
        limit,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// The oldest keys in `PROCESSING`: those that were left behind, or those that somebody holds.
pub(super) async fn list_unsettled(
    pool: &PgPool,
    left_behind: bool,
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
            and (k.lease_expires_at < now()) = $1
        order by u.claimed_at
        limit $2
        "#,
        left_behind,
        limit,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// How many there are, and the age of the oldest.
pub(super) async fn count_unsettled(pool: &PgPool) -> sqlx::Result<Unsettled> {
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
        "#,
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
