//! Expired keys, for the clean-up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// The oldest expired key.
pub(crate) struct OldestExpired {
    pub(crate) expires_at: DateTime<Utc>,
    past_by_seconds: f64,
}

impl OldestExpired {
    /// Time since it expired, by the database's clock.
    pub(crate) fn past_by(&self) -> Duration {
        Duration::try_from_secs_f64(self.past_by_seconds).unwrap_or_default()
    }
}

/// Finds the oldest expired key.
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

/// Returns the end of a batch of at most `limit` expired keys, starting at `from`: the time of the first key after the batch. Returns
/// `None` if the batch has all the remaining keys.
///
/// It counts keys in `PROCESSING`, too, because their state is not in the index: to leave them out would read every key's page, as the
/// delete does later.
pub(crate) async fn end_of_batch(
    connection: &mut PgConnection,
    from: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        r#"
        select expires_at
        from idempotency_keys
        where expires_at >= $1
            and expires_at < now()
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

/// The server's transactions that write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writers {
    /// The number after that of the last one that ended.
    pub(crate) next: i64,
    /// Whether another one with a lower number is under way.
    pub(crate) are_under_way: bool,
}

/// Sees the server's transactions that write: those that only read have no number.
pub(crate) async fn see_writers(connection: &mut PgConnection) -> sqlx::Result<Writers> {
    sqlx::query_as!(
        Writers,
        r#"
        select
            pg_snapshot_xmax(s)::text::bigint as "next!",
            pg_snapshot_xmin(s) < pg_snapshot_xmax(s) as "are_under_way!"
        from pg_current_snapshot() s
        "#,
    )
    .fetch_one(connection)
    .await
}

/// Deletes the expired keys from `from` on and before `end`, and returns how many. If a transaction holds one of them, it fails by
/// the session's lock time-out and deletes none. The delete itself is the lock: a clean-up that may do nothing else could not lock
/// a row first, and Citus locks no rows of many merchants.
pub(crate) async fn delete_expired_between(
    connection: &mut PgConnection,
    from: DateTime<Utc>,
    end: Option<DateTime<Utc>>,
) -> sqlx::Result<u64> {
    let deleted = sqlx::query!(
        r#"
        delete from idempotency_keys
        where expires_at >= $1
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

/// An expired key that the clean-up found.
pub(crate) struct ExpiredKey {
    merchant_id: String,
    operation: String,
    key: String,
    pub(crate) expires_at: DateTime<Utc>,
}

/// Lists up to `limit` expired keys, oldest first, from `from` on and after `last`. Takes no lock.
pub(crate) async fn list_expired(
    connection: &mut PgConnection,
    from: DateTime<Utc>,
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
        where expires_at >= $1
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

/// Deletes those of these keys that are still final and expired, and returns how many. `is true` keeps the planner from the index of
/// times, by which it would read all that have expired.
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
            and (k.expires_at < now()) is true
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

/// Returns how many keys a clean-up would delete now, from `from` on.
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

/// Takes the lock that lets one clean-up run at a time. Correctness does not depend on it. Returns false if another clean-up is
/// running.
pub(crate) async fn try_cleanup_lock(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select pg_try_advisory_lock(hashtext('payonce-cleanup')) as "locked!""#)
        .fetch_one(connection)
        .await
}

/// Releases the clean-up's lock.
pub(crate) async fn release_cleanup_lock(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query_scalar!(r#"select pg_advisory_unlock(hashtext('payonce-cleanup')) as "unlocked!""#)
        .fetch_one(connection)
        .await
        .map(drop)
}

/// The settings of the clean-up's session.
///
/// Counting millions of rows may take longer than a request's statement ever should. The wait for a lock is shorter than a request's,
/// and shorter than PostgreSQL's check for a deadlock (1 s), so that the clean-up is the one that gives way. Its commits wait for the
/// disk, although a delete need not be durable: not waiting was no faster, and while the disk stands still the clean-up should, too.
pub(crate) async fn set_up_cleanup(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("set statement_timeout = '1min'; set lock_timeout = '250ms'")
        .execute(connection)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use sqlx::PgPool;

    use super::*;

    const WRITE: &str = "select pg_current_xact_id()";

    /// The server's other databases write meanwhile, too, so that nothing is said of when there are no writers.
    #[sqlx::test(migrations = false)]
    async fn a_writer_is_seen_while_it_is_at_work_and_when_it_has_ended(pool: PgPool) {
        let mut cleanup = pool.acquire().await.expect("a connection");
        let before = see_writers(&mut cleanup).await.expect("seen");
        let mut at_work = pool.begin().await.expect("a transaction");
        sqlx::query(WRITE)
            .execute(&mut *at_work)
            .await
            .expect("a number");
        // Only transactions before the last that ended are in a snapshot.
        sqlx::query(WRITE).execute(&pool).await.expect("an end");
        let during = see_writers(&mut cleanup).await.expect("seen");
        assert!(during.next >= before.next + 2, "{before:?} {during:?}");
        assert!(during.are_under_way, "{during:?}");
    }
}
