//! A transaction that the engine lends to the caller's work, and takes back.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::error::IdempotencyError;
use crate::database;

/// How long work may go without using its transaction: the server ends an idle transaction after 10 s, so work that has waited for
/// 10 s, and 2 s for an answer, waits on a connection that does not answer.
const UNTOUCHED: Duration = Duration::from_secs(12);

/// An open transaction, lent to the work that runs in it. Queries run on it as on a [`PgConnection`]; only the
/// engine commits. Dropping it gives it back.
///
/// Await each `begin` to its end: sqlx rolls the whole transaction back if one is dropped before, for example by a time-out. The engine
/// refuses such work, but what it has written after that is not undone.
///
/// ```no_run
/// use payonce_engine::{Outcome, StoredResponse, Transaction};
/// use sqlx::Connection;
///
/// /// A function of the service: it takes a connection, and need not know that the engine has opened the transaction.
/// async fn insert_order(connection: &mut sqlx::PgConnection) -> sqlx::Result<()> {
///     sqlx::query("insert into orders (sku) values ('tea')").execute(connection).await.map(drop)
/// }
///
/// async fn work(mut tx: Transaction) -> sqlx::Result<Outcome> {
///     insert_order(&mut tx).await?;
///     // A savepoint: what may fail without ending the order.
///     let mut savepoint = tx.begin().await?;
///     match sqlx::query("insert into gifts (sku) values ('mug')").execute(&mut *savepoint).await {
///         Ok(_) => savepoint.commit().await?,
///         Err(_) => savepoint.rollback().await?,
///     }
///     StoredResponse::json(201, &"ordered").map(Outcome::Completed).map_err(sqlx::Error::decode)
/// }
/// ```
pub struct Transaction {
    /// `None` only while it is being dropped.
    lent: Option<database::BoundedTransaction>,
    home: Option<oneshot::Sender<database::BoundedTransaction>>,
    touched: Touched,
}

/// When the work last used its transaction.
#[derive(Clone)]
struct Touched(Arc<Mutex<Instant>>);

impl Touched {
    fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.lent {
            Some(transaction) => transaction,
            None => unreachable!("a transaction is given back only when it is dropped"),
        }
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.touched.renew();
        match &mut self.lent {
            Some(transaction) => transaction,
            None => unreachable!("a transaction is given back only when it is dropped"),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let (Some(home), Some(transaction)) = (self.home.take(), self.lent.take()) {
            // If the work is dropped midway, nothing waits for the transaction, and it is rolled back.
            drop(home.send(transaction));
        }
    }
}

/// Runs the work in the transaction and takes the transaction back, which must be as it was lent: in sqlx 0.9, a `begin` that is
/// dropped midway inside a transaction rolls all of it back, and what follows would be committed at once. Work that has not used it
/// for 12 s is stopped, because its connection does not answer.
pub(super) async fn lend<T, Fut>(
    transaction: database::BoundedTransaction,
    work: impl FnOnce(Transaction) -> Fut,
) -> Result<(database::BoundedTransaction, T), IdempotencyError>
where
    Fut: Future<Output = T>,
{
    let (home, mut returned) = oneshot::channel();
    let touched = Touched::now();
    let mut working = pin!(work(Transaction {
        lent: Some(transaction),
        home: Some(home),
        touched: touched.clone(),
    }));
    let result = loop {
        let deadline = touched.last() + UNTOUCHED;
        match timeout_at(deadline, &mut working).await {
            Ok(result) => break result,
            Err(_) if touched.last() + UNTOUCHED > deadline => {}
            Err(_) => return Err(database::timed_out().into()),
        }
    };
    match returned.try_recv() {
        Ok(transaction) if transaction.depth() == 1 => Ok((transaction, result)),
        Ok(transaction) => {
            transaction.discard();
            Err(IdempotencyError::Aborted(
                "it left a savepoint open, or dropped `begin` before it was done, which ends the transaction",
            ))
        }
        Err(_) => Err(IdempotencyError::Aborted("it kept the transaction")),
    }
}
