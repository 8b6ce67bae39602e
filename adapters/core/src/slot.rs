//! The engine's transaction, on its way to a handler and back.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use payonce_engine::Transaction;
use sqlx::PgConnection;

/// Holds the transaction for a handler, which takes it and gives it back. It travels with the request.
///
/// ```no_run
/// # async fn handler(slot: payonce_http::Slot) -> Result<(), Box<dyn std::error::Error>> {
/// use payonce_http::NoTransaction;
///
/// let mut tx = slot.take()?;
/// sqlx::query("insert into orders (sku) values ('tea')").execute(&mut *tx).await?;
/// // There is one transaction. While it is lent, nobody else gets it.
/// assert!(matches!(slot.take(), Err(NoTransaction::Taken)));
/// drop(tx);
/// assert!(slot.take().is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Slot(Arc<Mutex<State>>);

enum State {
    Here(Transaction),
    Lent,
    /// The handler has ended.
    Closed,
}

/// Why a handler gets no transaction.
///
/// ```
/// use payonce_http::NoTransaction;
///
/// assert!(NoTransaction::Taken.to_string().contains("pass `&mut tx` on"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTransaction {
    /// There is no idempotency layer around the route, or it let the request through, as it does with GET, HEAD and OPTIONS.
    #[error(
        "this handler takes a transaction, and its request has none: put the idempotency layer around the route, and give GET, HEAD and OPTIONS a handler that takes no `Tx`"
    )]
    NoLayer,
    /// Another extractor of the same request holds it.
    #[error(
        "this handler takes the transaction twice: one `Tx` is all there is, pass `&mut tx` on"
    )]
    Taken,
    /// The handler has ended, and a clone of its request still exists.
    #[error("the handler has ended, and its transaction with it")]
    Ended,
}

impl Slot {
    pub(crate) fn holding(transaction: Transaction) -> Self {
        Self(Arc::new(Mutex::new(State::Here(transaction))))
    }

    /// Takes the transaction.
    ///
    /// # Errors
    ///
    /// [`NoTransaction`] if it is lent already, or the handler has ended.
    pub fn take(&self) -> Result<Lent, NoTransaction> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Lent) {
            State::Here(transaction) => Ok(Lent {
                transaction: Some(transaction),
                slot: self.clone(),
            }),
            State::Lent => Err(NoTransaction::Taken),
            State::Closed => {
                *state = State::Closed;
                Err(NoTransaction::Ended)
            }
        }
    }

    /// Gives the transaction back to the engine when the handler has ended. Returns false if the handler gave it to something that
    /// still holds it.
    pub(crate) fn close(&self) -> bool {
        let was = std::mem::replace(&mut *self.lock(), State::Closed);
        !matches!(was, State::Lent)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The transaction, lent to a handler. It dereferences to a [`PgConnection`]. Dropping it gives it back. [`Slot`] has an example.
pub struct Lent {
    /// `None` only while it is being dropped.
    transaction: Option<Transaction>,
    slot: Slot,
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.transaction {
            Some(transaction) => transaction,
            None => unreachable!("a transaction is given back only when it is dropped"),
        }
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.transaction {
            Some(transaction) => transaction,
            None => unreachable!("a transaction is given back only when it is dropped"),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut state = self.slot.lock();
        if let (State::Lent, Some(transaction)) = (&*state, self.transaction.take()) {
            *state = State::Here(transaction);
        }
    }
}
