//! Claims whose owner may be dead.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::stored::stored_scope;
use crate::key::ScopedKey;

/// A key whose lease has ended. [`Engine::abandoned`](crate::Engine::abandoned) has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// The key.
    pub scope: ScopedKey,
    /// Its first use.
    pub claimed_at: DateTime<Utc>,
}

/// Lists keys of these operations whose lease has ended, oldest first, starting after `after`. Takes no lock.
pub(crate) async fn list_abandoned(
    connection: &mut PgConnection,
    operations: &[&str],
    after: Option<&Abandoned>,
    limit: i64,
) -> sqlx::Result<Vec<Abandoned>> {
    let rows = sqlx::query!(
        r#"
        select
            u.merchant_id,
            u.operation,
            u.key,
            u.claimed_at
        from unsettled_keys u
        join idempotency_keys k
            on k.merchant_id = u.merchant_id
            and k.operation = u.operation
            and k.key = u.key
        where k.state = 'PROCESSING'
            and k.lease_expires_at < now()
            and u.operation = any($6::text[])
            and (
                $1::timestamptz is null
                or (u.claimed_at, u.merchant_id, u.operation, u.key) > ($1, $2, $3, $4)
            )
        order by u.claimed_at, u.merchant_id, u.operation, u.key
        limit $5
        "#,
        after.map(|after| after.claimed_at),
        after.map(|after| after.scope.merchant_id.as_str()),
        after.map(|after| after.scope.operation.as_str()),
        after.map(|after| after.scope.key.as_str()),
        limit,
        operations as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Abandoned {
                scope: stored_scope(row.merchant_id, row.operation, &row.key)?,
                claimed_at: row.claimed_at,
            })
        })
        .collect()
}

/// Returns how many keys are in `PROCESSING`, and how long the oldest has been.
pub(crate) async fn count_unsettled(connection: &mut PgConnection) -> sqlx::Result<(i64, f64)> {
    let row = sqlx::query!(
        r#"
        select
            count(*) as "unsettled!",
            coalesce(extract(epoch from now() - min(claimed_at)), 0)::float8 as "oldest_seconds!"
        from unsettled_keys
        "#,
    )
    .fetch_one(connection)
    .await?;
    Ok((row.unsettled, row.oldest_seconds))
}
