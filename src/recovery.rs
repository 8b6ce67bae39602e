//! Recovery of payments: the engine's [`recovery`](crate::idempotency::Recovery), and how a payment's claim is resumed. It also
//! checks refunds that the gateway has accepted but not finished.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::idempotency::{self, IdempotencyError, Permit, Resume, ScopedKey};
pub use crate::idempotency::{Recovered, RecoveryReport};
use crate::payments::{Operation, PaymentError, Payments};

/// The recovery worker of one node.
pub struct Recovery {
    payments: Payments,
    claims: idempotency::Recovery<ResumePayments>,
}

impl Recovery {
    /// Creates a worker that has tried nothing yet.
    pub fn new(payments: Payments) -> Self {
        let engine = payments.engine().clone();
        Self {
            payments: payments.clone(),
            claims: idempotency::Recovery::new(engine, ResumePayments::new(payments)),
        }
    }

    /// Makes one pass over all abandoned claims of payments.
    pub async fn run_once(&mut self) -> Result<RecoveryReport, IdempotencyError> {
        self.claims.run_once().await
    }

    /// Takes one claim over and resumes it, for an operator.
    pub async fn recover(&self, scope: &ScopedKey) -> Recovered {
        self.claims.recover(scope).await
    }

    /// Makes a pass and checks pending refunds every `every`, until the future is dropped.
    pub async fn run(self, every: Duration) {
        tokio::join!(self.claims.run(every), follow_refunds(self.payments, every));
    }
}

async fn follow_refunds(payments: Payments, every: Duration) {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = payments.follow_refunds().await {
            tracing::warn!(%error, "pending refunds could not be listed");
        }
    }
}

/// Continues a payment's claim as its first run would.
struct ResumePayments {
    payments: Payments,
    operations: Vec<&'static str>,
}

impl ResumePayments {
    fn new(payments: Payments) -> Self {
        let operations = Operation::ALL.iter().map(|operation| operation.as_str());
        Self {
            payments,
            operations: operations.collect(),
        }
    }
}

impl Resume for ResumePayments {
    fn operations(&self) -> &[&'static str] {
        &self.operations
    }

    async fn may_take_over(&self, scope: &ScopedKey, resource_id: &str) -> Result<(), Recovered> {
        let allowed = self.payments.may_take_over(scope, resource_id).await;
        allowed.map_err(|error| left_alone(scope, &error.into()))
    }

    async fn resume(&self, permit: Permit) -> Recovered {
        let scope = permit.claim().scope.clone();
        match self.payments.resume(permit).await {
            Ok(reply) if reply.response.status == 202 => Recovered::Unknown,
            // "Nothing happened" releases the key, which also resolves it.
            Ok(_)
            | Err(
                PaymentError::GatewayUnavailable
                | PaymentError::GatewayRefused(_)
                | PaymentError::GatewayMisconfigured {
                    may_have_charged: false,
                    ..
                },
            ) => Recovered::Resolved,
            Err(error) => left_alone(&scope, &error),
        }
    }
}

fn left_alone(scope: &ScopedKey, error: &PaymentError) -> Recovered {
    match error {
        PaymentError::GatewayMisconfigured { reason, .. } => {
            tracing::error!(key = %scope, reason, "a claim is left alone");
            Recovered::Misconfigured
        }
        error => {
            tracing::warn!(key = %scope, %error, "a claim could not be resolved");
            Recovered::Failed
        }
    }
}
