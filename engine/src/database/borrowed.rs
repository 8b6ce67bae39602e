//! A borrowed connection, and the deadline of each use of it.
//!
//! A connection can stop answering: its packets are dropped on the way, or a pooler lets it wait. The server's time-outs do not
//! help then. So each use has a deadline by this process's clock ([`Bounded::bounded`]), a little after the server would have ended
//! the statement, and the connection is then closed by dropping its socket. Closing it properly, or giving it back to the pool,
//! would wait for an answer that never comes.

use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgTransactionManager;
use sqlx::{PgConnection, Postgres, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;
use tokio::time::{Instant, Timeout, timeout};

/// The longest use of a connection: PostgreSQL's own `statement_timeout` of 5 s, and 2 s for its answer to arrive.
///
/// ```
/// use std::time::Duration;
///
/// use payonce_engine::database::{SESSION_SETTINGS, USE_TIMEOUT};
///
/// assert!(SESSION_SETTINGS.contains(&("statement_timeout", "5s")));
/// // The server ends a slow statement first, so that its error arrives.
/// assert!(USE_TIMEOUT > Duration::from_secs(5));
/// ```
pub const USE_TIMEOUT: Duration = Duration::from_secs(7);

/// How long a connection may take to show that it is healthy when it is given back, or to be closed properly.
const RETURN_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection was used for longer than allowed. What was sent may have been carried out.
///
/// ```
/// use payonce_engine::database::timed_out;
/// use payonce_engine::may_have_committed;
///
/// assert!(may_have_committed(&timed_out()));
/// ```
pub fn timed_out() -> sqlx::Error {
    let error = io::Error::new(
        io::ErrorKind::TimedOut,
        "the database did not answer in time",
    );
    sqlx::Error::Io(error)
}

pin_project_lite::pin_project! {
    /// A use of a connection with a deadline. [`Bounded`] has an example.
    #[must_use = "futures do nothing unless they are awaited"]
    pub struct Within<F> {
        #[pin]
        using: Timeout<F>,
    }
}

impl<T, F: Future<Output = sqlx::Result<T>>> Future for Within<F> {
    type Output = sqlx::Result<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().using.poll(context));
        Poll::Ready(result.unwrap_or_else(|_| Err(timed_out())))
    }
}

/// Gives a use of a connection its deadline.
///
/// ```no_run
/// # async fn report(pool: sqlx::PgPool) -> sqlx::Result<()> {
/// use std::time::Duration;
///
/// use payonce_engine::database::{Bounded, acquire};
///
/// let mut connection = acquire(&pool).await?;
/// let orders = sqlx::query("select order_id from orders where order_id > 100")
///     .fetch_all(&mut *connection)
///     .bounded()
///     .await?;
/// // A statement whose session has a longer `statement_timeout`.
/// sqlx::query("set statement_timeout = '60s'").execute(&mut *connection).bounded().await?;
/// connection.close_on_drop();
/// let total: i64 = sqlx::query_scalar("select count(*) from orders")
///     .fetch_one(&mut *connection)
///     .within(Duration::from_secs(62))
///     .await?;
/// # drop((orders, total));
/// # Ok(())
/// # }
/// ```
pub trait Bounded<T>: Future<Output = sqlx::Result<T>> + Sized {
    /// Ends with an error after [`USE_TIMEOUT`]; the connection cannot be used any more then, and its [`BorrowedConnection`] closes it.
    fn bounded(self) -> Within<Self> {
        self.within(USE_TIMEOUT)
    }

    /// The same with another time-out, for a statement that may take longer.
    fn within(self, limit: Duration) -> Within<Self> {
        Within {
            using: timeout(limit, self),
        }
    }
}

impl<T, F: Future<Output = sqlx::Result<T>>> Bounded<T> for F {}

/// A connection borrowed from a pool. Dropping it gives it back, or closes it if a use of it took too long.
///
/// ```no_run
/// # async fn lock(pool: sqlx::PgPool) -> sqlx::Result<()> {
/// use payonce_engine::database::{Bounded, acquire};
///
/// let mut connection = acquire(&pool).await?;
/// // The lock belongs to the session, so the connection must not go back to the pool with it.
/// connection.close_on_drop();
/// sqlx::query("select pg_advisory_lock(17)").execute(&mut *connection).bounded().await?;
/// // … and before another process needs the lock:
/// connection.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BorrowedConnection {
    /// `None` only while it is being dropped or closed.
    connection: Option<PoolConnection<Postgres>>,
    since: Instant,
    ending: Ending,
}

/// Whether the connection is given back or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    GiveBack,
    Close,
    Discard,
}

impl BorrowedConnection {
    pub(super) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self {
            connection: Some(connection),
            since: Instant::now(),
            ending: Ending::GiveBack,
        }
    }

    /// It will be closed and not given back, because its session has settings or locks of its own.
    pub fn close_on_drop(&mut self) {
        self.ending = Ending::Close;
    }

    /// Closes the connection at once by dropping its socket. It does not wait, and the pool may open another.
    pub fn discard(mut self) {
        self.ending = Ending::Discard;
    }

    /// Closes the connection properly, or by dropping its socket if that takes longer than a second.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            // The pool's permit is free either way when this ends.
            drop(timeout(RETURN_TIMEOUT, connection.close()).await);
        }
    }
}

impl Deref for BorrowedConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.connection {
            Some(connection) => connection,
            None => unreachable!("a connection is taken out only when the loan ends"),
        }
    }
}

impl DerefMut for BorrowedConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.connection {
            Some(connection) => connection,
            None => unreachable!("a connection is taken out only when the loan ends"),
        }
    }
}

impl Drop for BorrowedConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        let is_overdue = self.since.elapsed() >= USE_TIMEOUT;
        let runtime = Handle::try_current();
        let (Ok(runtime), false) = (runtime, is_overdue || self.ending == Ending::Discard) else {
            // The pool's permit is free at once; dropping the connection drops its socket.
            drop(connection.detach());
            return;
        };
        // Both wait for the server. If that takes too long, the future is dropped, and the socket with it.
        if self.ending == Ending::Close {
            let closing = timeout(RETURN_TIMEOUT, connection.close());
            runtime.spawn(async move { drop(closing.await) });
        } else {
            let returning = timeout(RETURN_TIMEOUT, connection.return_to_pool());
            runtime.spawn(async move { drop(returning.await) });
        }
    }
}

/// An open transaction on a connection of the pool. Dropping it rolls it back.
///
/// It is sqlx's own kind of transaction, so that `begin` inside it makes a savepoint. Unlike [`sqlx::Transaction`] it is safe
/// against cancellation at BEGIN and COMMIT, and has a deadline on a connection that does not answer.
///
/// ```no_run
/// # async fn order(pool: sqlx::PgPool) -> sqlx::Result<()> {
/// use payonce_engine::database::{Bounded, begin};
/// use payonce_engine::may_have_committed;
///
/// let mut transaction = begin(&pool).await?;
/// sqlx::query("insert into orders (sku) values ('tea')").execute(&mut *transaction).bounded().await?;
/// match transaction.commit().await {
///     Err(error) if may_have_committed(&error) => eprintln!("the order may exist: look before you repeat"),
///     committed => committed?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BoundedTransaction {
    borrowed: BorrowedConnection,
    is_open: bool,
}

impl BoundedTransaction {
    /// Begins a transaction on a borrowed connection.
    ///
    /// # Errors
    ///
    /// The database's. The connection is discarded then.
    pub async fn begin(borrowed: BorrowedConnection) -> sqlx::Result<Self> {
        let mut transaction = Self {
            borrowed,
            is_open: false,
        };
        transaction
            .step(|connection| PgTransactionManager::begin(connection, None).boxed())
            .await?;
        transaction.is_open = true;
        Ok(transaction)
    }

    /// Begins a transaction by a statement that also checks the connection. It fails if the statement does, or takes longer than
    /// `limit`.
    pub(super) async fn begin_by(
        borrowed: BorrowedConnection,
        statement: &'static str,
        limit: Duration,
    ) -> sqlx::Result<Self> {
        let mut transaction = Self {
            borrowed,
            is_open: false,
        };
        transaction
            .step(|connection| {
                let begin = PgTransactionManager::begin(connection, Some(statement.into_sql_str()));
                begin.within(limit).boxed()
            })
            .await?;
        transaction.is_open = true;
        Ok(transaction)
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// The database's. Nothing was committed, unless [`may_have_committed`](super::may_have_committed) says otherwise.
    pub async fn commit(mut self) -> sqlx::Result<()> {
        self.is_open = false;
        self.step(|connection| PgTransactionManager::commit(connection).boxed())
            .await
    }

    /// How deep the work is in it: 1, and one more for each savepoint that is open.
    pub(crate) fn depth(&self) -> usize {
        PgTransactionManager::get_transaction_depth(&self.borrowed)
    }

    /// Closes its connection at once, which rolls it back.
    pub(crate) fn discard(mut self) {
        self.is_open = false;
        self.borrowed.ending = Ending::Discard;
    }

    /// Rolls back. Dropping a transaction does the same, without waiting for the answer.
    ///
    /// # Errors
    ///
    /// The database's. The connection is discarded then, which rolls back as well.
    pub async fn rollback(mut self) -> sqlx::Result<()> {
        self.is_open = false;
        self.step(|connection| PgTransactionManager::rollback(connection).boxed())
            .await
    }

    /// Begins or ends the transaction. If this step failed or was dropped midway, it is not known whether it was carried out, so
    /// the connection is discarded.
    async fn step<F>(&mut self, step: F) -> sqlx::Result<()>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<()>>,
    {
        let ending = std::mem::replace(&mut self.borrowed.ending, Ending::Discard);
        step(&mut self.borrowed).bounded().await?;
        self.borrowed.ending = ending;
        Ok(())
    }
}

impl Deref for BoundedTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.borrowed
    }
}

impl DerefMut for BoundedTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.borrowed
    }
}

impl Drop for BoundedTransaction {
    fn drop(&mut self) {
        if self.is_open {
            // Sent when the connection is given back, within the time allowed for that.
            PgTransactionManager::start_rollback(&mut self.borrowed);
        }
    }
}
