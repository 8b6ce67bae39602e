//! The SQL of the traffic's minutes.

use std::time::Duration;

use sqlx::PgPool;
use uuid::Uuid;

use super::Counts;
use crate::database::{self, Bounded};

fn column(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Adds to the node's row of this minute.
pub(super) async fn add_to_minute(pool: &PgPool, node: Uuid, counts: &Counts) -> sqlx::Result<()> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query!(
        r#"
        insert into traffic_minutes as t (
            merchant_id,
            minute,
            node,
            executed,
            replayed,
            made,
            declined,
            unknown,
            failed
        )
        values ('', date_trunc('minute', now()), $1, $2, $3, $4, $5, $6, $7)
        on conflict (merchant_id, minute, node) do update
        set executed = t.executed + excluded.executed,
            replayed = t.replayed + excluded.replayed,
            made = t.made + excluded.made,
            declined = t.declined + excluded.declined,
            unknown = t.unknown + excluded.unknown,
            failed = t.failed + excluded.failed
        "#,
        node,
        column(counts.executed),
        column(counts.replayed),
        column(counts.made),
        column(counts.declined),
        column(counts.unknown),
        column(counts.failed),
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(())
}

/// The last hour's rows of all nodes: the age in minutes, and the counts.
pub(super) async fn list_minutes(pool: &PgPool) -> sqlx::Result<Vec<(i64, Counts)>> {
    let mut connection = database::acquire(pool).await?;
    let rows = sqlx::query!(
        r#"
        select
            (extract(epoch from date_trunc('minute', now()) - minute) / 60)::bigint as "minutes_ago!",
            executed,
            replayed,
            made,
            declined,
            unknown,
            failed
        from traffic_minutes
        where merchant_id = ''
            and minute > now() - interval '60 minutes'
        "#,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await?;
    let counted = rows.into_iter().map(|row| {
        let counts = Counts {
            executed: row.executed.unsigned_abs(),
            replayed: row.replayed.unsigned_abs(),
            made: row.made.unsigned_abs(),
            declined: row.declined.unsigned_abs(),
            unknown: row.unknown.unsigned_abs(),
            failed: row.failed.unsigned_abs(),
        };
        (row.minutes_ago, counts)
    });
    Ok(counted.collect())
}

/// Deletes minutes older than `age`.
pub(super) async fn delete_older(pool: &PgPool, age: Duration) -> sqlx::Result<()> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query!(
        r#"
        delete from traffic_minutes
        where merchant_id = ''
            and minute < now() - make_interval(secs => $1)
        "#,
        age.as_secs_f64(),
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(())
}
