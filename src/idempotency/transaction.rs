//! A transaction that the engine lends to the caller's work, and takes back.

use std::future::Future;
use std::ops::{Deref, DerefMut};

use sqlx::{PgConnection, Postgres};
use tokio::sync::oneshot;

use super::error::IdempotencyError;

/// An open transaction, lent to the work that runs in it. It is a [`PgConnection`] to whoever queries through it; only the
/// engine commits. Dropping it gives it back.
pub struct Transaction {
    /// `None` only while it is being dropped.
    lent: Option<sqlx::Transaction<'static, Postgres>>,
    home: Option<oneshot::Sender<sqlx::Transaction<'static, Postgres>>>,
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
        match &mut self.lent {
            Some(transaction) => transaction,
            None => unreachable!("a transaction is given back only when it is dropped"),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let (Some(home), Some(transaction)) = (self.home.take(), self.lent.take()) {
            // Nobody waits for it when the work was dropped midway: sqlx then rolls it back.
            drop(home.send(transaction));
        }
    }
}

/// Runs the work in the transaction and takes the transaction back.
pub(super) async fn lend<T, Fut>(
    transaction: sqlx::Transaction<'static, Postgres>,
    work: impl FnOnce(Transaction) -> Fut,
) -> Result<(sqlx::Transaction<'static, Postgres>, T), IdempotencyError>
where
    Fut: Future<Output = T>,
{
    let (home, mut returned) = oneshot::channel();
    let result = work(Transaction {
        lent: Some(transaction),
        home: Some(home),
    })
    .await;
    match returned.try_recv() {
        Ok(transaction) => Ok((transaction, result)),
        Err(_) => Err(IdempotencyError::Aborted("it kept the transaction")),
    }
}
