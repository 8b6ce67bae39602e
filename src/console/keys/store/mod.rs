//! The SQL of the console's pages of keys. Every query finds its rows by a primary key, in `unsettled_keys`, which is small, or among
//! a limited number of the newest by `expires_at`.

mod by_name;
mod newest;

use std::time::Duration;

use sqlx::PgPool;

pub(super) use self::by_name::{KeysNamed, NamedKeys, find_keys};
pub(super) use self::newest::{Newest, NewestKeys, list_newest};
use super::{KeyView, Unsettled};
use crate::database::{self, Bounded};
use crate::idempotency::ScopedKey;

/// Maximum number of keys that a statement examines.
pub(super) const LOOKED_AT: i64 = 5_000;

/// A key, if its row has one.
macro_rules! key_view {
    ($row:ident) => {
        KeyView {
            merchant_id: $row.merchant_id?,
            operation: $row.operation?,
            key: $row.key?,
            state: $row.state?,
            fingerprint_prefix: $row.fingerprint_prefix?,
            attempt: $row.attempt?,
            owner: $row.owner?,
            lease_expires_at: $row.lease_expires_at,
            is_left_behind: $row.is_left_behind,
            resource_id: $row.resource_id,
            response_status: $row.response_status,
            created_at: $row.created_at?,
            completed_at: $row.completed_at,
            expires_at: $row.expires_at?,
        }
    };
}
use key_view;

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
