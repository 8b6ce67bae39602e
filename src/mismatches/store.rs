//! The SQL of mismatches. Their table is called `refused_reuses`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::{Noted, NotedMismatch};
use crate::database::{self, Bounded};
use crate::idempotency::{IdempotencyKey, ScopedKey};

/// Adds mismatches to the rows of their requests. `rows` names each request once.
pub(super) async fn add_refusals(pool: &PgPool, rows: &[(Noted, u64)]) -> sqlx::Result<()> {
    let mut connection = database::acquire(pool).await?;
    let text = |column: fn(&Noted) -> &str| -> Vec<String> {
        rows.iter().map(|(row, _)| column(row).to_owned()).collect()
    };
    // PostgreSQL has no arrays of arrays of different lengths.
    let changed: Vec<String> = rows.iter().map(|(row, _)| row.changed.join("\n")).collect();
    let refusals: Vec<i64> = rows
        .iter()
        .map(|(_, refusals)| i64::try_from(*refusals).unwrap_or(i64::MAX))
        .collect();
    sqlx::query!(
        r#"
        insert into refused_reuses as r (
            merchant_id,
            operation,
            key,
            actual_prefix,
            expected_prefix,
            changed,
            refusals,
            first_seen_at,
            last_seen_at
        )
        select
            n.merchant_id,
            n.operation,
            n.key,
            n.actual_prefix,
            n.expected_prefix,
            string_to_array(n.changed, e'\n'),
            n.refusals,
            now(),
            now()
        from unnest(
            $1::text[],
            $2::text[],
            $3::text[],
            $4::text[],
            $5::text[],
            $6::text[],
            $7::bigint[]
        ) as n (merchant_id, operation, key, actual_prefix, expected_prefix, changed, refusals)
        on conflict (merchant_id, operation, key, actual_prefix) do update
        set refusals = r.refusals + excluded.refusals,
            expected_prefix = excluded.expected_prefix,
            changed = excluded.changed,
            last_seen_at = excluded.last_seen_at
        "#,
        &text(|row| &row.scope.merchant_id),
        &text(|row| &row.scope.operation),
        &text(|row| row.scope.key.as_str()),
        &text(|row| &row.actual_prefix),
        &text(|row| &row.expected_prefix),
        &changed,
        &refusals,
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(())
}

/// Deletes all but the `kept` latest of each key in `rows`.
pub(super) async fn keep_latest(
    pool: &PgPool,
    rows: &[(Noted, u64)],
    kept: i64,
) -> sqlx::Result<()> {
    let mut connection = database::acquire(pool).await?;
    let text = |column: fn(&Noted) -> &str| -> Vec<String> {
        rows.iter().map(|(row, _)| column(row).to_owned()).collect()
    };
    sqlx::query!(
        r#"
        delete from refused_reuses r
        using (
            select
                o.merchant_id,
                o.operation,
                o.key,
                o.actual_prefix
            from (
                select distinct
                    n.merchant_id,
                    n.operation,
                    n.key
                from unnest($1::text[], $2::text[], $3::text[]) as n (merchant_id, operation, key)
            ) as touched
            cross join lateral (
                select
                    merchant_id,
                    operation,
                    key,
                    actual_prefix
                from refused_reuses
                where merchant_id = touched.merchant_id
                    and operation = touched.operation
                    and key = touched.key
                order by last_seen_at desc, actual_prefix
                offset $4
            ) as o
        ) as outlived
        where r.merchant_id = outlived.merchant_id
            and r.operation = outlived.operation
            and r.key = outlived.key
            and r.actual_prefix = outlived.actual_prefix
        "#,
        &text(|row| &row.scope.merchant_id),
        &text(|row| &row.scope.operation),
        &text(|row| row.scope.key.as_str()),
        kept,
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(())
}

/// Deletes at most `limit` mismatches that were not seen for `age`.
pub(super) async fn delete_older(pool: &PgPool, age: Duration, limit: i64) -> sqlx::Result<()> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query!(
        r#"
        delete from refused_reuses r
        using (
            select
                merchant_id,
                operation,
                key,
                actual_prefix
            from refused_reuses
            where last_seen_at < now() - make_interval(secs => $1)
            order by last_seen_at
            limit $2
        ) as old
        where r.merchant_id = old.merchant_id
            and r.operation = old.operation
            and r.key = old.key
            and r.actual_prefix = old.actual_prefix
        "#,
        age.as_secs_f64(),
        limit,
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(())
}

struct Row {
    merchant_id: String,
    operation: String,
    key: String,
    actual_prefix: String,
    expected_prefix: String,
    changed: Vec<String>,
    refusals: i64,
    first_seen_at: DateTime<Utc>,
    last_seen_at: DateTime<Utc>,
}

impl Row {
    fn into_noted_mismatch(self) -> sqlx::Result<NotedMismatch> {
        let key =
            IdempotencyKey::new(&self.key).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok(NotedMismatch {
            scope: ScopedKey::new(self.merchant_id, self.operation, key),
            expected_prefix: self.expected_prefix,
            actual_prefix: self.actual_prefix,
            changed: self.changed,
            refusals: self.refusals.unsigned_abs(),
            first_seen_at: self.first_seen_at,
            last_seen_at: self.last_seen_at,
        })
    }
}

/// The mismatches of one key, latest first.
pub(super) async fn list_of_key(
    pool: &PgPool,
    scope: &ScopedKey,
) -> sqlx::Result<Vec<NotedMismatch>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        Row,
        r#"
        select
            merchant_id,
            operation,
            key,
            actual_prefix,
            expected_prefix,
            changed,
            refusals,
            first_seen_at,
            last_seen_at
        from refused_reuses
        where merchant_id = $1
            and operation = $2
            and key = $3
        order by last_seen_at desc, actual_prefix
        limit 50
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await?
    .into_iter()
    .map(Row::into_noted_mismatch)
    .collect()
}

/// The latest mismatches of all keys.
pub(super) async fn list_latest(pool: &PgPool, limit: i64) -> sqlx::Result<Vec<NotedMismatch>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        Row,
        r#"
        select
            merchant_id,
            operation,
            key,
            actual_prefix,
            expected_prefix,
            changed,
            refusals,
            first_seen_at,
            last_seen_at
        from refused_reuses
        order by last_seen_at desc
        limit $1
        "#,
        limit,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await?
    .into_iter()
    .map(Row::into_noted_mismatch)
    .collect()
}
