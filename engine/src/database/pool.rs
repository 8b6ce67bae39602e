//! The pool: the check of each connection before it is lent, and the limit on waiting for one.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::timeout;

use super::borrowed::{BorrowedConnection, BoundedTransaction};
use super::{session, shortage};

/// How long a request waits for a connection, and a program for its first: short enough that a
/// client learns within its own time-out that the database is gone.
///
/// ```
/// use payonce_engine::database::{ACQUIRE_TIMEOUT, pool_options};
///
/// assert_eq!(pool_options().get_acquire_timeout(), ACQUIRE_TIMEOUT);
/// ```
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection is replaced when it is older than this, so that a change of the server, its role or its address soon takes effect.
///
/// ```
/// use payonce_engine::database::{MAX_LIFETIME, pool_options};
///
/// assert_eq!(pool_options().get_max_lifetime(), Some(MAX_LIFETIME));
/// ```
pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A connection that was idle for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Opening a connection takes milliseconds. A longer wait is for another task to give one back.
const SHORT_OF_CONNECTIONS: Duration = Duration::from_millis(300);

/// Options of a pool whose connections the engine can use. Embedders and tests use it with [`PgPoolOptions::connect_with`].
///
/// * A new connection gets the settings that the engine needs if a pooler dropped them, and is refused if its server takes no
///   writes.
/// * A connection is lent only if it answers within a second, takes writes, and is outside a transaction. sqlx 0.9.0 is not safe
///   against cancellation at BEGIN (sqlx issues 4385 and 4393): a future that is dropped there gives its connection back inside an
///   open transaction, and what its next borrower writes and takes for committed is rolled back later. This query replaces the ping
///   that sqlx would send, at the same cost.
/// * A connection is replaced after 30 minutes.
///
/// ```no_run
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// use payonce_engine::database::{pool_options, session_options};
///
/// let database = session_options(std::env::var("DATABASE_URL")?.parse()?);
/// let pool = pool_options().max_connections(20).connect_with(database).await?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
pub fn pool_options() -> PgPoolOptions {
    PgPoolOptions::new()
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .idle_timeout(IDLE_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(|connection, _| session::prepare(connection).boxed())
        .before_acquire(|connection, _| {
            if CHECKED_BY_BEGIN.try_with(|()| ()).is_ok() {
                return std::future::ready(Ok(true)).boxed();
            }
            session::is_usable(connection).map(Ok).boxed()
        })
}

tokio::task_local! {
    /// Set while a connection is lent whose check is sent together with its BEGIN.
    static CHECKED_BY_BEGIN: ();
}

/// Lends a connection of the pool. The number of waiting tasks and how long they waited are metrics, which show first if a pool is
/// too small.
///
/// Each use of it must be [`bounded`](super::Bounded::bounded).
///
/// ```no_run
/// # async fn count(pool: sqlx::PgPool) -> sqlx::Result<i64> {
/// use payonce_engine::database::{Bounded, acquire};
///
/// let mut connection = acquire(&pool).await?;
/// sqlx::query_scalar("select count(*) from orders").fetch_one(&mut *connection).bounded().await
/// # }
/// ```
///
/// # Errors
///
/// [`sqlx::Error::PoolTimedOut`] after [`ACQUIRE_TIMEOUT`], or the error of connecting.
pub async fn acquire(pool: &PgPool) -> sqlx::Result<BorrowedConnection> {
    let _waiting = Waiting::start();
    lend(pool).await
}

/// Begins a transaction on a connection of the pool, counted as by [`acquire`], its BEGIN included. The check of the connection and
/// BEGIN are one round trip. [`BoundedTransaction`] has an example.
///
/// # Errors
///
/// As for [`acquire`], or the error of BEGIN.
pub async fn begin(pool: &PgPool) -> sqlx::Result<BoundedTransaction> {
    let _waiting = Waiting::start();
    let unchecked = CHECKED_BY_BEGIN.scope((), lend(pool)).await?;
    match BoundedTransaction::begin_by(unchecked, &session::CHECKED_BEGIN, session::CHECK_TIMEOUT)
        .await
    {
        Ok(transaction) => Ok(transaction),
        // Most often it has ended while nobody used it. The next one is checked before it is lent.
        Err(_) => BoundedTransaction::begin(lend(pool).await?).await,
    }
}

async fn lend(pool: &PgPool) -> sqlx::Result<BorrowedConnection> {
    let mut acquiring = pin!(pool.acquire());
    let acquired = match timeout(SHORT_OF_CONNECTIONS, &mut acquiring).await {
        Ok(acquired) => acquired,
        Err(_) => {
            shortage::suspect(pool);
            acquiring.await
        }
    };
    acquired.map(BorrowedConnection::new)
}

/// A waiting task. Its wait is also counted if it gives up.
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use sqlx::postgres::PgConnectOptions;

    use super::*;

    #[sqlx::test(migrations = false)]
    async fn no_connection_is_lent_inside_a_transaction(_: PgPoolOptions, it: PgConnectOptions) {
        let pool = pool_options()
            .max_connections(1)
            .connect_with(it)
            .await
            .expect("connected");
        for left_behind in ["begin", "begin; select 1/0"] {
            let mut connection = pool.acquire().await.expect("lent");
            // The state after a future was dropped at BEGIN: sqlx knows of no transaction.
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
    async fn no_transaction_begins_inside_another_or_on_an_ended_connection(
        _: PgPoolOptions,
        it: PgConnectOptions,
    ) {
        let pool = pool_options()
            .max_connections(1)
            .connect_with(it)
            .await
            .expect("connected");
        for left_behind in [
            "begin; create table left_behind ()",
            "begin; select 1/0",
            "select pg_terminate_backend(pg_backend_pid())",
        ] {
            let mut connection = pool.acquire().await.expect("lent");
            drop(sqlx::raw_sql(left_behind).execute(&mut *connection).await);
            drop(connection);

            let mut transaction = begin(&pool).await.expect(left_behind);
            let seen = sqlx::raw_sql("select to_regclass('left_behind')::text as seen")
                .fetch_one(&mut *transaction)
                .await
                .expect("asked");
            let seen: Option<String> = sqlx::Row::get(&seen, "seen");
            assert_eq!(seen, None, "{left_behind}");
            transaction.commit().await.expect("committed");
        }
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
