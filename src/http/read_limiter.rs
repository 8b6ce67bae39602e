//! Limits how many reads of one merchant run at once: they use at most a quarter of the database's connections, so a burst of
//! reads by one merchant leaves the rest to the others.
//!
//! Creating payments needs no such limit: its claims and settles go in groups, which are already fair among merchants. Captures,
//! cancels and refunds have a limit of their own (`payments::turns`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::idempotency::IdempotencyError;
use crate::payments::{Turn, Turnstile};

/// Equal to the time that a request waits for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// Counts the running reads of all merchants. Clones share the counts.
#[derive(Clone)]
pub struct ReadLimiter(Turnstile<Arc<str>>);

impl ReadLimiter {
    /// Allows each merchant a quarter of `connections`, and at least one.
    pub fn of(connections: u32) -> Self {
        Self(Turnstile::quarter(connections))
    }

    /// Waits until the merchant may start another read.
    pub(super) async fn enter(
        &self,
        merchant_id: &Arc<str>,
    ) -> Result<Turn<Arc<str>>, IdempotencyError> {
        self.0.enter(merchant_id, Instant::now() + PATIENCE).await
    }
}
