//! The parts of the service that the handlers use.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use sqlx::PgPool;

use super::card_intake::CardIntake;
use super::read_limiter::ReadLimiter;
use crate::idempotency::IdempotencyError;
use crate::merchants::{Authenticator, RateLimiter};
use crate::payments::Payments;

/// The parts of the service that the handlers use.
pub struct Services {
    /// The payments.
    pub payments: Payments,
    /// Finds the merchant of an API key.
    pub authenticator: Authenticator,
    /// How often each merchant may call; `None` for no limit.
    pub rate_limiter: Option<RateLimiter>,
    /// How many reads of one merchant may run at once.
    pub read_limiter: ReadLimiter,
    /// Whether clients may send card numbers.
    pub card_intake: CardIntake,
    /// Maximum time until a body has arrived.
    pub body_timeout: Duration,
    /// The database, for `/readyz` and the pool's metrics.
    pub pool: PgPool,
    /// The metrics for `/metrics`.
    pub metrics: PrometheusHandle,
}

impl Services {
    /// Runs a read in a task of the engine's runtime, as soon as the merchant's limit allows it.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        merchant_id: &Arc<str>,
        reading: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, IdempotencyError> {
        let turn = self.read_limiter.enter(merchant_id).await?;
        let reading = async move {
            let read = reading.await;
            drop(turn);
            read
        };
        self.payments.engine().run(reading).await
    }
}
