//! What only reads takes turns for the database's connections: one merchant's reads hold a quarter of them at the most, so
//! that its storm leaves the others theirs. Payments need no such turn: their claims and settles go in groups, which take
//! merchants in turn by themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Services;
use crate::idempotency::IdempotencyError;

/// As long as one waits for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// The turns of all merchants that are reading now. Cloning it gives the same ones.
#[derive(Clone)]
pub struct Reads {
    most: usize,
    patience: Duration,
    merchants: Arc<Mutex<HashMap<Arc<str>, Arc<Semaphore>>>>,
}

impl Reads {
    /// Each merchant's part of so many connections: a quarter, and at least one.
    pub fn of(connections: u32) -> Self {
        Self {
            most: usize::try_from(connections / 4).unwrap_or(1).max(1),
            patience: PATIENCE,
            merchants: Arc::default(),
        }
    }

    /// Waits until one of the merchant's reads has ended, where it has too many.
    async fn enter(&self, merchant_id: &Arc<str>) -> Result<Turn, IdempotencyError> {
        let mut turn = Turn {
            permit: None,
            merchant_id: Arc::clone(merchant_id),
            reads: self.clone(),
        };
        let turns = Arc::clone(
            self.lock()
                .entry(Arc::clone(merchant_id))
                .or_insert_with(|| Arc::new(Semaphore::new(self.most))),
        );
        let permit = timeout(self.patience, turns.acquire_owned()).await;
        // It is never closed.
        turn.permit = permit.ok().and_then(Result::ok);
        match turn.permit {
            Some(_) => Ok(turn),
            None => Err(IdempotencyError::Overloaded),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Semaphore>>> {
        self.merchants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One read. The last of a merchant forgets it.
struct Turn {
    permit: Option<OwnedSemaphorePermit>,
    merchant_id: Arc<str>,
    reads: Reads,
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut merchants = self.reads.lock();
        if merchants
            .get(&self.merchant_id)
            .is_some_and(|turns| Arc::strong_count(turns) == 1)
        {
            merchants.remove(&self.merchant_id);
        }
    }
}

impl Services {
    /// Runs what only reads, in the merchant's turn, in a task of the engine's runtime.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        merchant_id: &Arc<str>,
        reading: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, IdempotencyError> {
        let turn = self.reads.enter(merchant_id).await?;
        let reading = async move {
            let read = reading.await;
            drop(turn);
            read
        };
        self.payments.engine().run(reading).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_merchant_has_its_quarter_and_is_forgotten_after_its_last_read() {
        let reads = Reads::of(8);
        let (acme, other) = (Arc::from("acme"), Arc::from("other"));
        let enter = |merchant| reads.enter(merchant).now_or_never().and_then(Result::ok);
        let first = enter(&acme).expect("its first");
        let second = enter(&acme).expect("its second");
        assert!(enter(&acme).is_none(), "a third has to wait");
        assert!(enter(&other).is_some(), "another merchant's is its own");
        drop(first);
        let third = enter(&acme).expect("in the first's place");
        drop((second, third));
        assert!(reads.lock().is_empty());
        assert!(enter(&acme).is_some());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let reads = Reads {
            patience: Duration::from_millis(10),
            ..Reads::of(1)
        };
        let acme = Arc::from("acme");
        let held = reads.enter(&acme).await.expect("its only one");
        let refused = reads.enter(&acme).await.map(drop);
        assert!(matches!(refused, Err(IdempotencyError::Overloaded)));
        drop(held);
        reads.enter(&acme).await.expect("free again");
    }
}
