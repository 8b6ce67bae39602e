//! The database, as every program of this crate opens it: each wait bounded, no connection lent
//! inside a transaction, and refused where it would lose what it confirmed.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::time::timeout;

use crate::MIGRATOR;

/// The oldest major version that this crate is tested with.
pub(crate) const OLDEST_VERSION: u32 = 14;

/// How long a request waits for a connection, and a program for its first: short enough that a
/// client learns within its own time-out that the database is gone.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// Set on every connection, over what the role or the URL says.
pub(crate) const SESSION_SETTINGS: [(&str, &str); 4] = [
    // Every statement is one of milliseconds; one that takes this long is lost.
    ("statement_timeout", "5s"),
    // Holders of row locks do nothing but talk to the database, so a lock is free long before.
    ("lock_timeout", "5s"),
    // A program that died, or whose machine did, keeps its locks no longer than this.
    ("idle_in_transaction_session_timeout", "10s"),
    // A generic plan that was made while a table was empty scans it all when it no longer is.
    ("plan_cache_mode", "force_custom_plan"),
];

/// Which database, and how it is used.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database?parameters`.
    pub url: SecretString,
    /// The most connections, at least 1.
    pub max_connections: u32,
    /// Work on a database that may lose what it confirmed.
    pub allow_unsafe: bool,
}

/// Why a database cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL can't be used. Final; it is not repeated, because it holds a password.
    #[error("--database-url (DATABASE_URL) {0}")]
    Configuration(String),
    /// No connection came about within 3 s, or the server refused it.
    #[error("cannot reach the database at {address}")]
    Unreachable {
        /// `host:port/database as user`, without the password.
        address: String,
        /// What the network or the server said.
        source: sqlx::Error,
    },
    /// Final.
    #[error("the database is PostgreSQL {0}; payonce needs {OLDEST_VERSION} or later")]
    TooOld(u32),
    /// The server, the role or the URL turned off what makes a commit last.
    #[error(
        "{setting} is off: the database may lose what it confirmed. \
         Turn it on, or pass --allow-unsafe-database"
    )]
    Unsafe {
        /// PostgreSQL's name of the setting.
        setting: &'static str,
    },
    /// No migration was ever applied.
    #[error("the database has no payonce schema; run payonce migrate first")]
    NoSchema,
    /// This program needs migrations that were not applied.
    #[error(
        "the database's schema is older than this program: it lacks migration {missing}; \
         run payonce migrate first"
    )]
    OldSchema {
        /// The first version that is missing.
        missing: i64,
    },
    /// A migration could not be applied.
    #[error("the migrations could not be applied")]
    Migration(#[from] MigrateError),
    /// A query failed.
    #[error("the database failed")]
    Query(#[from] sqlx::Error),
}

/// Opens the pool, after one connection has shown that the database can be reached and is recent
/// enough.
///
/// The pool alone would try again in silence until its time is over, and not say why.
pub async fn connect(settings: &DatabaseSettings) -> Result<PgPool, DatabaseError> {
    let options = connect_options(&settings.url)?;
    let connection = reach(&options).await?;
    let version = connection.server_version_num();
    connection.close().await.map_err(unreachable(&options))?;
    // Engines that speak PostgreSQL's protocol may not say; they are not kept out for it.
    if let Some(version) = version.map(|number| number / 10_000)
        && version < OLDEST_VERSION
    {
        return Err(DatabaseError::TooOld(version));
    }
    Ok(pool_options()
        .max_connections(settings.max_connections)
        .connect_lazy_with(options))
}

/// One connection as the pool's are, whatever [`connect`] would say of its database.
pub(crate) async fn connect_once(url: &SecretString) -> Result<PgConnection, DatabaseError> {
    reach(&connect_options(url)?).await
}

async fn reach(options: &PgConnectOptions) -> Result<PgConnection, DatabaseError> {
    timeout(ACQUIRE_TIMEOUT, options.connect())
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(unreachable(options))
}

fn unreachable(options: &PgConnectOptions) -> impl Fn(sqlx::Error) -> DatabaseError + use<> {
    let address = describe(options);
    move |source| DatabaseError::Unreachable {
        address: address.clone(),
        source,
    }
}

/// Where a URL leads, without its password; nothing, where it is none.
pub(crate) fn address(url: &SecretString) -> String {
    connect_options(url).map_or_else(|_| String::new(), |options| describe(&options))
}

/// Reads a URL and adds what every connection is set to: its time-outs and, unless the URL
/// has one, the application's name.
///
/// sqlx adds `TimeZone=UTC` itself. It logs statements at `debug`, and at `warn` those that take
/// more than 1 s, always without their parameters.
pub fn connect_options(url: &SecretString) -> Result<PgConnectOptions, DatabaseError> {
    let url = url.expose_secret();
    check_url(url).map_err(|reason| DatabaseError::Configuration(reason.to_owned()))?;
    let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
        DatabaseError::Configuration(format!("is not a PostgreSQL URL: {error}"))
    })?;
    let options = options.options(SESSION_SETTINGS);
    Ok(match options.get_application_name() {
        Some(_) => options,
        None => options.application_name("payonce"),
    })
}

/// A password with a bare `/`, `?` or `#` ends the URL's host early: its rest would be taken for
/// the database's name or a parameter, and shown. The `@` that follows gives it away.
fn check_url(url: &str) -> Result<(), &'static str> {
    let rest = url
        .strip_prefix("postgres://")
        .or_else(|| url.strip_prefix("postgresql://"))
        .ok_or("must begin with postgres:// or postgresql://")?;
    let after_host = rest.find(['/', '?', '#']).map_or("", |end| &rest[end..]);
    if after_host.contains(['@', '#']) {
        return Err("has a bare @, / , ? or # where none can be; write them as %40, %2F, %3F, %23");
    }
    Ok(())
}

/// `host:port/database as user`.
fn describe(options: &PgConnectOptions) -> String {
    let host = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let user = options.get_username();
    let database = options.get_database().unwrap_or(user);
    format!("{host}:{}/{database} as {user}", options.get_port())
}

/// A pool that lends no connection inside a transaction. Embedders and tests use it with
/// [`PgPoolOptions::connect_with`].
///
/// sqlx 0.9.0 is not safe against cancellation at BEGIN (sqlx issues 4385 and 4393): a future that
/// is dropped there gives its connection back inside an open transaction, and what its next
/// borrower writes and takes for committed is rolled back later. So a connection is asked before it
/// is lent, in place of the ping that sqlx would send: same cost.
pub fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new()
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, _| is_outside_a_transaction(connection).boxed())
}

/// A connection of the pool. How many wait for one and how long they waited are metrics: a pool that is too small is seen
/// there first.
pub async fn acquire(pool: &PgPool) -> sqlx::Result<PoolConnection<Postgres>> {
    let _waiting = Waiting::start();
    pool.acquire().await
}

/// A transaction on a connection of the pool, counted as by [`acquire`], its BEGIN included.
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let _waiting = Waiting::start();
    pool.begin().await
}

/// One that waits. Its wait is counted when it gives up, too.
struct Waiting {
    since: Instant,
}

impl Waiting {
    fn start() -> Self {
        metrics::gauge!("payonce_database_waiting").increment(1);
        Self {
            since: Instant::now(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!("payonce_database_waiting").decrement(1);
        metrics::histogram!("payonce_database_wait_seconds")
            .record(self.since.elapsed().as_secs_f64());
    }
}

/// False: the connection is in a transaction, in a failed one or broken. The pool closes it and
/// opens another.
async fn is_outside_a_transaction(connection: &mut PgConnection) -> sqlx::Result<bool> {
    // In a transaction, now() is the time of its BEGIN; outside, it is the statement's own. Sent as
    // a simple query: one round trip, and nothing to prepare.
    let sql = "select now() <> statement_timestamp() as in_transaction";
    let row = sqlx::raw_sql(sql).fetch_one(connection).await;
    let in_transaction = row.and_then(|row| sqlx::Row::try_get::<bool, _>(&row, "in_transaction"));
    Ok(matches!(in_transaction, Ok(false)))
}

/// Refuses a database that would lose what it confirmed, or warns of it where that is allowed.
///
/// `synchronous_commit` is asked of a session of this pool, so that one turned off by the URL or
/// the role is seen, too.
pub async fn check_durability(pool: &PgPool, allow_unsafe: bool) -> Result<(), DatabaseError> {
    let on = sqlx::query!(
        r#"
        select
            current_setting('fsync') <> 'off' as "fsync!",
            current_setting('full_page_writes') <> 'off' as "full_page_writes!",
            current_setting('synchronous_commit') <> 'off' as "synchronous_commit!"
        "#,
    )
    .fetch_one(pool)
    .await?;
    let settings = [
        ("fsync", on.fsync),
        ("full_page_writes", on.full_page_writes),
        ("synchronous_commit", on.synchronous_commit),
    ];
    for (setting, _) in settings.into_iter().filter(|(_, is_on)| !is_on) {
        if !allow_unsafe {
            return Err(DatabaseError::Unsafe { setting });
        }
        tracing::warn!(
            setting,
            "is off: the database may lose what it confirmed, as allowed"
        );
    }
    Ok(())
}

/// Applies the migrations that the database lacks. A schema that is newer than this program is left
/// as it is: during a rolling upgrade old and new nodes run side by side.
///
/// Programs that start at once take turns, however long the first one takes: the wait for one's
/// turn, and a migration itself, are the only statements without a time-out. Locks that a migration
/// needs still have theirs, because traffic queues up behind a migration that waits.
pub async fn migrate(pool: &PgPool) -> Result<(), DatabaseError> {
    // Closed at the end, not given back, and with it go its settings and its lock.
    let mut connection = pool.acquire().await?.detach();
    let migrated = migrate_on(&mut connection).await;
    let closed = connection.close().await;
    migrated?;
    Ok(closed?)
}

async fn migrate_on(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    // Without the notice that sqlx's "create table if not exists" brings each time.
    let patient =
        "set statement_timeout = 0; set lock_timeout = 0; set client_min_messages = error";
    sqlx::raw_sql(patient).execute(&mut *connection).await?;
    connection.lock().await?;
    sqlx::raw_sql("reset lock_timeout")
        .execute(&mut *connection)
        .await?;
    let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator.set_ignore_missing(true).set_locking(false);
    Ok(migrator.run(connection).await?)
}

/// Refuses a database whose schema is older than this program, or that has none. A newer one is
/// fine: see [`migrate`].
pub async fn schema_is_current(pool: &PgPool) -> Result<(), DatabaseError> {
    // Not checked at compile time: the table is sqlx's own, and absent where migrations were
    // applied by psql.
    let has_schema: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(pool)
        .await?;
    if !has_schema {
        return Err(DatabaseError::NoSchema);
    }
    let applied: Vec<i64> =
        sqlx::query_scalar("select version from _sqlx_migrations where success")
            .fetch_all(pool)
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
    use futures_util::FutureExt;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn options(url: &str) -> Result<PgConnectOptions, DatabaseError> {
        connect_options(&url.into())
    }

    fn reason(url: &str) -> String {
        options(url).map(drop).expect_err(url).to_string()
    }

    #[test]
    fn a_bad_url_names_the_setting_and_not_the_password() {
        for url in [
            "",
            "mysql://u:hunter2@host/db",
            "postgres://u:hunter2@host:port/db",
            "postgres://u:hunter2@host/db?sslmode=perhaps",
            "postgres://u:hunter2/12@host/db",
            "postgres://u:12/hunter2@host/db",
            "postgres://u:12?hunter2@host/db",
            "postgres://u:12#hunter2@host/db",
            "postgres://u:a@b/hunter2@host/db",
        ] {
            let reason = reason(url);
            assert!(
                reason.starts_with("--database-url (DATABASE_URL) "),
                "{url}: {reason}"
            );
            assert!(!reason.contains("hunter2"), "{url}: {reason}");
        }
    }

    #[test]
    fn an_address_is_described_without_its_password() {
        let options = options("postgres://u:hunter2@db.example:5433/pay").expect("a URL");
        assert_eq!(describe(&options), "db.example:5433/pay as u");
    }

    #[test]
    fn an_application_name_in_the_url_is_kept() {
        let named = options("postgres://u@h/d?application_name=mine").expect("a URL");
        assert_eq!(named.get_application_name(), Some("mine"));
    }

    #[tokio::test]
    async fn an_unreachable_database_is_named_without_its_password() {
        let settings = DatabaseSettings {
            url: "postgres://u:hunter2@127.0.0.1:1/d".into(),
            max_connections: 1,
            allow_unsafe: false,
        };
        let error = connect(&settings)
            .await
            .map(drop)
            .expect_err("nobody listens on port 1");
        assert_eq!(
            error.to_string(),
            "cannot reach the database at 127.0.0.1:1/d as u"
        );
    }

    #[sqlx::test(migrations = false)]
    async fn no_connection_is_lent_inside_a_transaction(_: PgPoolOptions, it: PgConnectOptions) {
        let pool = pool_options()
            .max_connections(1)
            .connect_with(it)
            .await
            .expect("connected");
        for left_behind in ["begin", "begin; select 1/0"] {
            let mut connection = pool.acquire().await.expect("lent");
            // What a future leaves behind that is dropped at BEGIN: sqlx knows of no transaction.
            drop(sqlx::raw_sql(left_behind).execute(&mut *connection).await);
            drop(connection);

            let mut connection = pool.acquire().await.expect("lent");
            let savepoint = sqlx::raw_sql("savepoint s").execute(&mut *connection).await;
            let error = savepoint.expect_err("it works in a transaction only");
            let code = error.as_database_error().and_then(|error| error.code());
            assert_eq!(code.as_deref(), Some("25P01"), "no_active_sql_transaction");
        }
    }

    #[sqlx::test(migrations = false)]
    async fn a_session_that_turned_durability_off_is_refused_unless_allowed(
        _: PgPoolOptions,
        it: PgConnectOptions,
    ) {
        let unsafe_session = it.options([("synchronous_commit", "off")]);
        let pool = pool_options()
            .connect_with(unsafe_session)
            .await
            .expect("connected");
        check_durability(&pool, true).await.expect("allowed");
        let refused = check_durability(&pool, false)
            .await
            .expect_err("refused")
            .to_string();
        assert!(refused.contains("--allow-unsafe-database"), "{refused}");
    }

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

    #[sqlx::test]
    async fn whoever_waits_for_a_connection_is_counted(_: PgPoolOptions, db: PgConnectOptions) {
        let pool = pool_options().max_connections(1).connect_with(db).await;
        let pool = pool.expect("the database");
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        // This thread's alone: the test's runtime has no other.
        let _recording = metrics::set_default_local_recorder(&recorder);
        let held = acquire(&pool).await.expect("the only one");
        let mut waiting = Box::pin(acquire(&pool));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(metrics.render().contains("payonce_database_waiting 1"));
        let mut begins = Box::pin(begin(&pool));
        assert!(begins.as_mut().now_or_never().is_none());
        assert!(metrics.render().contains("payonce_database_waiting 2"));
        drop((held, begins));
        drop(waiting.await.expect("in its place"));
        let counted = metrics.render();
        assert!(counted.contains("payonce_database_waiting 0"));
        assert!(
            counted.contains("payonce_database_wait_seconds_count 3"),
            "who gave up, too: {counted}"
        );
    }
}
