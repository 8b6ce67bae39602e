//! What only reads takes turns for the database's connections: one merchant's reads hold a quarter of them at the most, so
//! that its storm leaves the others theirs. Payments need no such turn: their claims and settles go in groups, which take
//! merchants in turn by themselves. Captures, cancels and refunds have turns of their own (`payments::turns`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Services;
use crate::idempotency::IdempotencyError;
use crate::payments::{Turn, Turnstile};

/// As long as one waits for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// The turns of all merchants that are reading now. Cloning it gives the same ones.
#[derive(Clone)]
pub struct Reads(Turnstile<Arc<str>>);

impl Reads {
    /// Each merchant's part of so many connections: a quarter, and at least one.
    pub fn of(connections: u32) -> Self {
        Self(Turnstile::quarter(connections))
    }

    /// Waits until one of the merchant's reads has ended, where it has too many.
    async fn enter(&self, merchant_id: &Arc<str>) -> Result<Turn<Arc<str>>, IdempotencyError> {
        self.0.enter(merchant_id, Instant::now() + PATIENCE).await
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
