//! Claims whose owner may be dead.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::stored::stored_scope;
use crate::key::ScopedKey;

/// A key whose lease has ended. [`Engine::list_abandoned`](crate::Engine::list_abandoned) has an example.
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

/// Does what [`list_abandoned`] does, where a node of the cluster is lost, for the shards of the others. It asks shard by shard, which
/// takes longer, and also lists claims whose lease has not ended; to take one over fails then.
///
/// Citus formats the command once more for each shard, so each percent sign in a value is doubled.
pub(crate) async fn list_on_live_nodes(
    connection: &mut PgConnection,
    operations: &[&str],
    after: Option<&Abandoned>,
    limit: i64,
) -> sqlx::Result<Vec<Abandoned>> {
    let shards: Vec<(bool, String)> = sqlx::query_as(
        "select success, result
        from run_command_on_shards(
            $1::text::regclass,
            format(
                $$select coalesce(json_agg(x), '[]')
                from (
                    select merchant_id, operation, key, claimed_at
                    from %%s
                    where operation = any(%L::text[])
                        and (
                            %L::timestamptz is null
                            or (claimed_at, merchant_id, operation, key) > (%L, %L, %L, %L)
                        )
                    order by claimed_at, merchant_id, operation, key
                    limit %s
                ) as x$$,
                replace($2::text[]::text, '%', '%%'),
                $3::timestamptz,
                $3::timestamptz,
                replace($4::text, '%', '%%'),
                replace($5::text, '%', '%%'),
                replace($6::text, '%', '%%'),
                $7::bigint
            )
        )",
    )
    .bind(UNSETTLED)
    .bind(operations)
    .bind(after.map(|after| after.claimed_at))
    .bind(after.map(|after| after.scope.merchant_id.as_str()))
    .bind(after.map(|after| after.scope.operation.as_str()))
    .bind(after.map(|after| after.scope.key.as_str()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let lost = shards.iter().filter(|(is_answer, _)| !is_answer).count();
    tracing::warn!(
        shards = shards.len(),
        lost,
        "a node of the cluster is lost: unfinished work on it is not seen"
    );
    let mut found = Vec::new();
    for (_, rows) in shards.iter().filter(|(is_answer, _)| *is_answer) {
        let rows: Vec<UnsettledRow> =
            serde_json::from_str(rows).map_err(|error| sqlx::Error::Decode(error.into()))?;
        for row in rows {
            found.push(Abandoned {
                scope: stored_scope(row.merchant_id, row.operation, &row.key)?,
                claimed_at: row.claimed_at,
            });
        }
    }
    found.sort_by(|a, b| (a.claimed_at, &a.scope).cmp(&(b.claimed_at, &b.scope)));
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(found)
}

/// The table whose shards are asked.
const UNSETTLED: &str = "unsettled_keys";

#[derive(serde::Deserialize)]
struct UnsettledRow {
    merchant_id: String,
    operation: String,
    key: String,
    claimed_at: DateTime<Utc>,
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
