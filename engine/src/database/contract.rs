//! The checks of a pool when an engine starts: whether it can keep the engine's guarantees.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Row};
use tokio::time::timeout;

use super::session::LENT_CHECKED;
use super::{ACQUIRE_TIMEOUT, Bounded, acquire, cluster_nodes};

/// Whether an engine starts on a database that may lose confirmed commits.
///
/// ```
/// use payonce_engine::{Durability, IdempotencyConfig};
///
/// assert_eq!(IdempotencyConfig::default().durability, Durability::Required);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// It does not start.
    #[default]
    Required,
    /// It starts, with a warning in the log. For development only: after a crash a key may be lost, and its work done twice.
    Waived,
}

/// Why a pool cannot keep the engine's guarantees, and what to set.
///
/// ```
/// use payonce_engine::UnfitPool;
///
/// let unfit = UnfitPool::LosesCommits { setting: "synchronous_commit".to_owned() };
/// assert!(unfit.to_string().starts_with("synchronous_commit is off: the database may lose confirmed commits"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnfitPool {
    /// The server, the role or the URL turned off a setting that makes commits durable.
    #[error(
        "{setting} is off: the database may lose confirmed commits; turn it on in the server's configuration, and for the \
         role and the connection"
    )]
    LosesCommits {
        /// The setting's name in PostgreSQL, and the node's address in a cluster.
        setting: String,
    },
    /// The pool does not check that a connection is outside a transaction before it lends it.
    #[error(
        "the pool lends connections that may be inside a transaction; build it with \
         payonce_engine::database::pool_options(), or use Engine::connect"
    )]
    LendsUnchecked,
    /// A setting of its sessions is missing, or a pooler dropped it.
    #[error(
        "the session's {setting} is {actual}, and has to be {needed}; connect with \
         payonce_engine::database::session_options(), or set it for the role where a pooler drops it: \
         alter role … set {setting} = '{example}'"
    )]
    Setting {
        /// The setting's name in PostgreSQL.
        setting: &'static str,
        /// The session's value.
        actual: String,
        /// The values that are allowed.
        needed: &'static str,
        /// An allowed value.
        example: &'static str,
    },
    /// A pooler gives statements of one connection to several sessions of the server.
    #[error(
        "a pooler shares sessions between connections (transaction or statement mode), which loses their settings; \
         let it pool sessions: pool_mode = session"
    )]
    SharesSessions,
    /// The engine's tables are not there, or not on the session's search_path.
    #[error("the table {table} is missing; run payonce_engine::migrate, or check the search_path")]
    NoSchema {
        /// The first that is missing.
        table: &'static str,
    },
    /// The database could not be asked.
    #[error("the database could not be checked")]
    Database(#[from] sqlx::Error),
}

/// The engine's tables.
const TABLES: [&str; 3] = ["idempotency_keys", "unsettled_keys", "fingerprint_secrets"];

/// Refuses a pool that does not keep the [contract](super#what-the-engine-needs-of-a-pool).
///
/// It runs queries on one connection of the pool, and briefly opens a second one.
///
/// ```no_run
/// # async fn look(pool: sqlx::PgPool) {
/// use payonce_engine::database::{Durability, check};
///
/// // For a health check of a service's own; `Engine::start` does it anyway.
/// if let Err(unfit) = check(&pool, Durability::Required).await {
///     eprintln!("{unfit}");
/// }
/// # }
/// ```
///
/// # Errors
///
/// [`UnfitPool`], which says what to set, or [`UnfitPool::Database`] if the pool could not be checked.
pub async fn check(pool: &PgPool, durability: Durability) -> Result<(), UnfitPool> {
    let mut connection = acquire(pool).await?;
    if shares_sessions(&pool.connect_options(), &mut connection).await? {
        return Err(UnfitPool::SharesSessions);
    }
    refuse_unbounded_sessions(&mut connection).await?;
    refuse_missing_tables(&mut connection).await?;
    for setting in settings_that_lose_commits(&mut connection).await? {
        if durability == Durability::Required {
            return Err(UnfitPool::LosesCommits { setting });
        }
        tracing::warn!(
            setting,
            "is off: the database may lose confirmed commits, which is allowed here"
        );
    }
    Ok(())
}

/// Returns those of `fsync`, `full_page_writes` and `synchronous_commit` that are off in this session, or on a node of the cluster
/// that the tables are distributed over: `fsync on 10.0.0.2:5432`. A node that cannot be asked is noted in the log.
///
/// ```no_run
/// # async fn look(pool: sqlx::PgPool) -> sqlx::Result<()> {
/// use payonce_engine::database::{acquire, settings_that_lose_commits};
///
/// for setting in settings_that_lose_commits(&mut *acquire(&pool).await?).await? {
///     eprintln!("{setting} is off");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The queries'.
pub async fn settings_that_lose_commits(
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<String>> {
    let mut off: Vec<String> = off_in_session(connection)
        .await?
        .into_iter()
        .map(str::to_owned)
        .collect();
    for node in cluster_nodes(connection).await? {
        match node.settings {
            Ok(settings) => {
                let address = &node.address;
                off.extend(
                    settings
                        .off
                        .iter()
                        .map(|name| format!("{name} on {address}")),
                );
            }
            Err(error) => tracing::warn!(
                node = node.address,
                error,
                "a node of the cluster could not be asked whether its commits are durable"
            ),
        }
    }
    Ok(off)
}

async fn off_in_session(connection: &mut PgConnection) -> sqlx::Result<Vec<&'static str>> {
    let on = sqlx::query!(
        r#"
        select
            current_setting('fsync') <> 'off' as "fsync!",
            current_setting('full_page_writes') <> 'off' as "full_page_writes!",
            current_setting('synchronous_commit') <> 'off' as "synchronous_commit!"
        "#,
    )
    .fetch_one(connection)
    .bounded()
    .await?;
    let settings = [
        ("fsync", on.fsync),
        ("full_page_writes", on.full_page_writes),
        ("synchronous_commit", on.synchronous_commit),
    ];
    let off = settings.into_iter().filter(|(_, is_on)| !is_on);
    Ok(off.map(|(setting, _)| setting).collect())
}

/// Returns true if a pooler shares sessions between connections (transaction or statement mode).
///
/// Two connections at once have two sessions. Behind such a pooler the second connection is given the session that the first has
/// just left, or the first is moved to another session while the second is inside a transaction. If the server grants no second
/// connection, there is nothing to compare, and this returns false.
///
/// ```no_run
/// # async fn look(pool: sqlx::PgPool) -> sqlx::Result<()> {
/// use payonce_engine::database::{acquire, shares_sessions};
///
/// let mut connection = acquire(&pool).await?;
/// if shares_sessions(&pool.connect_options(), &mut connection).await? {
///     eprintln!("the pooler has to run with pool_mode = session");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The queries'.
pub async fn shares_sessions(
    options: &PgConnectOptions,
    first: &mut PgConnection,
) -> sqlx::Result<bool> {
    let Ok(Ok(mut second)) = timeout(ACQUIRE_TIMEOUT, options.connect()).await else {
        return Ok(false);
    };
    let before = session_of(first).await?;
    sqlx::raw_sql("begin")
        .execute(&mut second)
        .bounded()
        .await?;
    let other = session_of(&mut second).await?;
    let after = session_of(first).await?;
    sqlx::raw_sql("rollback")
        .execute(&mut second)
        .bounded()
        .await?;
    drop(second.close().bounded().await);
    Ok(before != after || before == other)
}

/// A simple query: a pooler that shares sessions loses prepared statements.
async fn session_of(connection: &mut PgConnection) -> sqlx::Result<i32> {
    sqlx::raw_sql("select pg_backend_pid() as pid")
        .fetch_one(connection)
        .bounded()
        .await?
        .try_get("pid")
}

async fn refuse_unbounded_sessions(connection: &mut PgConnection) -> Result<(), UnfitPool> {
    let session = sqlx::query!(
        r#"
        select
            coalesce(current_setting($1, true), '') = 'on' as "is_lent_checked!",
            current_setting('statement_timeout') as "statement_timeout!",
            current_setting('lock_timeout') as "lock_timeout!",
            current_setting('idle_in_transaction_session_timeout') as "idle_timeout!",
            current_setting('transaction_isolation') as "isolation!",
            extract(epoch from current_setting('statement_timeout')::interval)::float8 as "statement_seconds!",
            extract(epoch from current_setting('lock_timeout')::interval)::float8 as "lock_seconds!",
            extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval)::float8 as "idle_seconds!"
        "#,
        LENT_CHECKED,
    )
    .fetch_one(connection)
    .bounded()
    .await?;
    let within = |seconds: f64, most: f64| seconds > 0.0 && seconds <= most;
    let settings = [
        (
            "statement_timeout",
            session.statement_timeout,
            within(session.statement_seconds, LONGEST_STATEMENT),
            "more than 0 and at most 5s",
            "5s",
        ),
        (
            "lock_timeout",
            session.lock_timeout,
            session.lock_seconds > 0.0 && session.lock_seconds < session.statement_seconds,
            "more than 0 and less than statement_timeout",
            "3s",
        ),
        (
            "idle_in_transaction_session_timeout",
            session.idle_timeout,
            within(session.idle_seconds, LONGEST_IDLE_TRANSACTION),
            "more than 0 and at most 10s",
            "10s",
        ),
        (
            "default_transaction_isolation",
            session.isolation.clone(),
            session.isolation == "read committed",
            "read committed",
            "read committed",
        ),
    ];
    for (setting, actual, is_fit, needed, example) in settings {
        if !is_fit {
            return Err(UnfitPool::Setting {
                setting,
                actual,
                needed,
                example,
            });
        }
    }
    if session.is_lent_checked {
        Ok(())
    } else {
        Err(UnfitPool::LendsUnchecked)
    }
}

/// In seconds. The server ends a statement before [`USE_TIMEOUT`](super::USE_TIMEOUT) gives up its connection.
const LONGEST_STATEMENT: f64 = 5.0;

/// In seconds. Work that has not used its transaction for longer is stopped, because the server has ended the transaction.
const LONGEST_IDLE_TRANSACTION: f64 = 10.0;

async fn refuse_missing_tables(connection: &mut PgConnection) -> Result<(), UnfitPool> {
    for table in TABLES {
        let exists =
            sqlx::query_scalar!(r#"select to_regclass($1) is not null as "exists!""#, table)
                .fetch_one(&mut *connection)
                .bounded()
                .await?;
        if !exists {
            return Err(UnfitPool::NoSchema { table });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    use super::*;
    use crate::database::{pool_options, session_options};

    /// A pool without this module's options.
    async fn plain_pool(database: PgConnectOptions) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .connect_with(database)
            .await
            .expect("connected")
    }

    async fn refusal(pool: &PgPool) -> UnfitPool {
        check(pool, Durability::Required)
            .await
            .expect_err("it is not fit")
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_pool_of_ours_is_fit(_: PgPoolOptions, database: PgConnectOptions) {
        let pool = pool_options().max_connections(1).connect_with(database);
        let pool = pool.await.expect("connected");
        check(&pool, Durability::Required).await.expect("fit");
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_session_without_a_time_out_is_refused_by_its_name(
        _: PgPoolOptions,
        database: PgConnectOptions,
    ) {
        for (missing, value) in [
            ("statement_timeout", "0"),
            ("statement_timeout", "5001ms"),
            ("lock_timeout", "0"),
            // Whichever ended a wait for a row first would decide what the wait means.
            ("lock_timeout", "5s"),
            ("idle_in_transaction_session_timeout", "0"),
            ("default_transaction_isolation", "serializable"),
        ] {
            let options = session_options(database.clone()).options([(missing, value)]);
            let refused = refusal(&plain_pool(options).await).await;
            assert!(
                matches!(refused, UnfitPool::Setting { setting, .. } if setting == missing),
                "{missing}: {refused:?}"
            );
            let text = refused.to_string();
            assert!(text.contains(&format!("set {missing} = '")), "{text}");
        }
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_pool_that_lends_unchecked_is_refused(_: PgPoolOptions, database: PgConnectOptions) {
        let refused = refusal(&plain_pool(session_options(database)).await).await;
        assert!(matches!(refused, UnfitPool::LendsUnchecked), "{refused:?}");
        assert!(refused.to_string().contains("pool_options()"), "{refused}");
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_session_that_loses_commits_is_refused_unless_that_is_waived(
        _: PgPoolOptions,
        database: PgConnectOptions,
    ) {
        let options = database.options([("synchronous_commit", "off")]);
        let pool = pool_options().max_connections(1).connect_with(options);
        let pool = pool.await.expect("connected");
        let refused = refusal(&pool).await;
        assert!(
            matches!(refused, UnfitPool::LosesCommits { ref setting } if setting == "synchronous_commit"),
            "{refused:?}"
        );
        check(&pool, Durability::Waived).await.expect("waived");
    }

    #[sqlx::test(migrations = false)]
    async fn a_database_without_the_tables_is_refused(
        _: PgPoolOptions,
        database: PgConnectOptions,
    ) {
        let pool = pool_options().max_connections(1).connect_with(database);
        let pool = pool.await.expect("connected");
        let refused = refusal(&pool).await;
        assert!(matches!(refused, UnfitPool::NoSchema { .. }), "{refused:?}");
        crate::migrate(&pool).await.expect("migrated");
        crate::migrate(&pool).await.expect("nothing left to do");
        check(&pool, Durability::Required).await.expect("fit");
    }
}
