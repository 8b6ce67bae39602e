//! The schema: migrations, and the check that it is as new as this program.

use std::time::Duration;

use sqlx::migrate::{Migrate, Migrator};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::sleep;

use super::{ACQUIRE_TIMEOUT, Bounded, DatabaseError, acquire, timed_out};
use crate::MIGRATOR;

/// The interval of checks on a running migration.
const WATCHED_EVERY: Duration = Duration::from_secs(2);

/// Number of checks in a row that must find the migration idle before it counts as lost. A single check may fall between two of its
/// statements.
const LOST_AFTER: u32 = 3;

/// Applies the migrations that the database lacks. A schema that is newer than this program is left unchanged, because old and new
/// nodes run side by side during a rolling upgrade.
///
/// Programs that start at the same time take turns, however long the first one takes: the wait for this turn and the migration
/// itself are the only statements without a time-out. The locks of a migration still have one, because traffic queues up behind a
/// migration that waits for a lock. A second connection checks that the first is working: if the first stops answering, the
/// migration ends with an error.
pub async fn migrate(pool: &PgPool) -> Result<(), DatabaseError> {
    let mut lease = acquire(pool).await?;
    // Closed at the end and not given back, because of its settings and its lock.
    lease.close_on_drop();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
        .fetch_one(&mut *lease)
        .bounded()
        .await?;
    let migrated = tokio::select! {
        migrated = migrate_on(&mut lease) => migrated,
        () = until_lost(pool, pid) => Err(timed_out().into()),
    };
    match migrated {
        Ok(()) => lease.close().await,
        Err(_) => lease.discard(),
    }
    migrated
}

/// Returns when the session is no longer working.
async fn until_lost(pool: &PgPool, pid: i32) {
    let mut missed = 0;
    while missed < LOST_AFTER {
        sleep(WATCHED_EVERY).await;
        missed = match is_at_work(pool, pid).await {
            Ok(true) => 0,
            // The server answers, but has no free connection.
            Err(error) if error.as_database_error().is_some() => 0,
            Ok(false) | Err(_) => missed + 1,
        };
    }
}

/// Asks on a separate connection, because the pool may have only one.
async fn is_at_work(pool: &PgPool, pid: i32) -> sqlx::Result<bool> {
    let asked = async {
        let mut connection = pool.connect_options().connect().await?;
        let sql = "select coalesce(bool_or(state = 'active'), false) \
                   from pg_stat_activity where pid = $1";
        let at_work = sqlx::query_scalar(sql)
            .bind(pid)
            .fetch_one(&mut connection)
            .await;
        drop(connection.close().await);
        at_work
    };
    asked.within(ACQUIRE_TIMEOUT).await
}

async fn migrate_on(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    // Suppresses the notice that sqlx's "create table if not exists" causes each time.
    let patient =
        "set statement_timeout = 0; set lock_timeout = 0; set client_min_messages = error";
    sqlx::raw_sql(patient)
        .execute(&mut *connection)
        .bounded()
        .await?;
    connection.lock().await?;
    sqlx::raw_sql("reset lock_timeout")
        .execute(&mut *connection)
        .bounded()
        .await?;
    let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator.set_ignore_missing(true).set_locking(false);
    Ok(migrator.run(connection).await?)
}

/// Refuses a database whose schema is missing or older than this program. A newer one is accepted: see [`migrate`].
pub async fn schema_is_current(pool: &PgPool) -> Result<(), DatabaseError> {
    // Not checked at compile time: the table is sqlx's own, and absent where migrations were
    // applied by psql.
    let mut connection = acquire(pool).await?;
    let has_schema: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *connection)
        .bounded()
        .await?;
    if !has_schema {
        return Err(DatabaseError::NoSchema);
    }
    let applied: Vec<i64> =
        sqlx::query_scalar("select version from _sqlx_migrations where success")
            .fetch_all(&mut *connection)
            .bounded()
            .await?;
    let mut needed = MIGRATOR.iter().map(|migration| migration.version);
    match needed.find(|version| !applied.contains(version)) {
        None => Ok(()),
        Some(_) if applied.is_empty() => Err(DatabaseError::NoSchema),
        Some(missing) => Err(DatabaseError::OldSchema { missing }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[sqlx::test(migrations = false)]
    async fn an_older_schema_is_refused_and_a_newer_one_is_not(pool: PgPool) {
        let checked = schema_is_current(&pool).await;
        assert!(matches!(checked, Err(DatabaseError::NoSchema)));
        migrate(&pool).await.expect("migrated");
        migrate(&pool).await.expect("nothing left to do");
        schema_is_current(&pool).await.expect("current");

        sqlx::raw_sql(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
            values (9999, 'from the future', true, '', 0)",
        )
        .execute(&pool)
        .await
        .expect("inserted");
        migrate(&pool)
            .await
            .expect("a newer schema is left as it is");
        schema_is_current(&pool).await.expect("newer is fine");

        sqlx::raw_sql("delete from _sqlx_migrations where version = 2")
            .execute(&pool)
            .await
            .expect("deleted");
        let checked = schema_is_current(&pool).await;
        assert!(matches!(
            checked,
            Err(DatabaseError::OldSchema { missing: 2 })
        ));
    }
}
