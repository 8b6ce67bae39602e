//! Resuming: finishes what a dead process left behind, by the same work as the first run.

use super::create::CreateWork;
use super::hold::HoldWork;
use super::refund::RefundWork;
use crate::database::{self, Bounded};
use crate::idempotency::{Answer, IdempotencyError, Permit, ScopedKey};
use crate::payments::{Operation, PaymentError, Payments, store};

impl Payments {
    /// Finishes a claim that was taken over, from what the claim stored.
    pub async fn resume(&self, permit: Permit) -> Result<Answer, PaymentError> {
        match Operation::from_name(&permit.claim().scope.operation) {
            Some(Operation::CreatePayment) => self.resume_as::<CreateWork>(permit).await,
            Some(Operation::CapturePayment | Operation::CancelPayment) => {
                self.resume_as::<HoldWork>(permit).await
            }
            Some(Operation::RefundPayment) => self.resume_as::<RefundWork>(permit).await,
            // The operation of another service on the same engine, which has a recovery of its own.
            None => Err(PaymentError::NotFound("operation")),
        }
    }

    /// Refuses to take over a claim whose payment belongs to a gateway that is not set up in this process. Another process, which
    /// has that gateway, can take it over.
    pub async fn may_take_over(
        &self,
        scope: &ScopedKey,
        resource_id: &str,
    ) -> Result<(), IdempotencyError> {
        let mut connection = database::acquire(self.pool()).await?;
        let gateway_type = store::find_gateway_of(&mut connection, &scope.merchant_id, resource_id)
            .bounded()
            .await?;
        match gateway_type {
            Some(gateway_type) => self
                .gateway_of(&gateway_type)
                .map(drop)
                .map_err(PaymentError::into_engine),
            None => Ok(()),
        }
    }
}
