//! Final keys past their time, for the clean-up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The oldest final key past its time.
pub(crate) struct OldestExpired {
    pub(crate) expires_at: DateTime<Utc>,
    past_by_seconds: f64,
}

impl OldestExpired {
    /// For how long it has been past its time, by the database's clock.
    pub(crate) fn past_by(&self) -> Duration {
        Duration::try_from_secs_f64(self.past_by_seconds).unwrap_or_default()
    }
}

/// Finds the oldest final key past its time.
pub(crate) async fn oldest_expired(
    connection: &mut PgConnection,
) -> sqlx::Result<Option<OldestExpired>> {
    sqlx::query_as!(
        OldestExpired,
        r#"
        select
            expires_at,
            extract(epoch from now() - expires_at)::float8 as "past_by_seconds!"
        from idempotency_keys
        where expires_at < now()
            and state <> 'PROCESSING'
        order by expires_at
        limit 1
        "#,
    )
    .fetch_optional(connection)
    .await
}

/// Where a batch of `limit` final keys past their time ends, from `from` on: the time of the first that is no longer in it.
/// Returns `None` if the batch has all that are left.
pub(crate) async fn end_of_batch(
    connection: &mut PgConnection,
    from: Option<DateTime<Utc>>,
    limit: i64,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        r#"
        select expires_at
        from idempotency_keys
        where expires_at >= coalesce($1::timestamptz, '-infinity')
            and expires_at < now()
            and state <> 'PROCESSING'
        order by expires_at
        limit 1
        offset $2
        "#,
        from,
        limit,
    )
    .fetch_optional(connection)
    .await
}

/// Where the write-ahead log is, in bytes. Not every PostgreSQL-compatible engine has one to show.
pub(crate) async fn written(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select (pg_current_wal_insert_lsn() - '0/0')::bigint as "written!""#)
        .fetch_one(connection)
        .await
}

/// Deletes the final keys past their time from `from` on and before `end`; returns how many. Where a transaction holds one of them it
/// fails by the session's lock time-out, and deletes none. The delete itself is the lock: a clean-up that may do nothing else
/// could not lock a row first, and Citus locks no rows of many merchants.
pub(crate) async fn delete_expired_between(
    connection: &mut PgConnection,
    from: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
) -> sqlx::Result<u64> {
    let deleted = sqlx::query!(
        r#"
        delete from idempotency_keys
        where expires_at >= coalesce($1::timestamptz, '-infinity')
            and expires_at < least($2::timestamptz, now())
            and state <> 'PROCESSING'
        "#,
        from,
        end,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// A final key past its time, where the clean-up found it.
pub(crate) struct ExpiredKey {
    merchant_id: String,
    operation: String,
    key: String,
    pub(crate) expires_at: DateTime<Utc>,
}

/// Up to `limit` final keys past their time, oldest first, from `from` on and from behind `last`. It locks nothing.
pub(crate) async fn list_expired(
    connection: &mut PgConnection,
    from: Option<DateTime<Utc>>,
    last: Option<&ExpiredKey>,
    limit: i64,
) -> sqlx::Result<Vec<ExpiredKey>> {
    sqlx::query_as!(
        ExpiredKey,
        r#"
        select
            merchant_id,
            operation,
            key,
            expires_at
        from idempotency_keys
        where expires_at >= coalesce($1::timestamptz, '-infinity')
            and expires_at < now()
            and state <> 'PROCESSING'
            and (
                $2::timestamptz is null
                or (expires_at, merchant_id, operation, key) > ($2, $3, $4, $5)
            )
        order by
            expires_at,
            merchant_id,
            operation,
            key
        limit $6
        "#,
        from,
        last.map(|last| last.expires_at),
        last.map(|last| last.merchant_id.as_str()),
        last.map(|last| last.operation.as_str()),
        last.map(|last| last.key.as_str()),
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Deletes these keys, as far as they are still final and past their time; says how many it deleted.
pub(crate) async fn delete_expired(
    connection: &mut PgConnection,
    keys: &[ExpiredKey],
) -> sqlx::Result<u64> {
    let column = |of: fn(&ExpiredKey) -> &String| keys.iter().map(of).cloned().collect::<Vec<_>>();
    let deleted = sqlx::query!(
        r#"
        delete from idempotency_keys k
        using unnest($1::text[], $2::text[], $3::text[]) as c (merchant_id, operation, key)
        where k.merchant_id = c.merchant_id
            and k.operation = c.operation
            and k.key = c.key
            and k.expires_at < now()
            and k.state <> 'PROCESSING'
        "#,
        &column(|key| &key.merchant_id),
        &column(|key| &key.operation),
        &column(|key| &key.key),
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// How many keys a clean-up would delete now, from `from` on.
pub(crate) async fn count_expired(
    connection: &mut PgConnection,
    from: Option<DateTime<Utc>>,
) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from idempotency_keys
        where expires_at >= coalesce($1::timestamptz, '-infinity')
            and expires_at < now()
            and state <> 'PROCESSING'
        "#,
        from,
    )
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// One clean-up at a time: a courtesy, not what correctness rests on. Returns false if another is at work.
pub(crate) async fn try_cleanup_lock(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select pg_try_advisory_lock(hashtext('payonce-cleanup')) as "locked!""#)
        .fetch_one(connection)
        .await
}

/// Lets the next clean-up begin.
pub(crate) async fn release_cleanup_lock(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query_scalar!(r#"select pg_advisory_unlock(hashtext('payonce-cleanup')) as "unlocked!""#)
        .fetch_one(connection)
        .await
        .map(drop)
}

/// Counting millions of rows may take longer than a request's statement ever should. A lock is waited for less than a request
/// would wait, and less than it takes PostgreSQL to look for a deadlock (1 s): of the two, the clean-up gives way.
pub(crate) async fn set_cleanup_timeouts(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("set statement_timeout = '1min'; set lock_timeout = '250ms'")
        .execute(connection)
        .await
        .map(drop)
}
