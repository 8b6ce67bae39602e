//! Canceling: releases all that a payment holds.

use super::hold::{HoldPlan, is_held};
use crate::idempotency::{Answer, IdempotencyKey, ScopedKey, Wait};
use crate::payments::{
    CancelRequest, OnPayment, Operation, Payment, PaymentError, Payments, Pending, answers,
};

impl Payments {
    /// Releases what a payment holds, once. Dropping this future stops nothing that has begun.
    pub async fn cancel(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        payment_id: &str,
        request: CancelRequest,
        wait: Wait,
    ) -> Result<Answer, PaymentError> {
        let scope = ScopedKey::new(merchant_id, Operation::CancelPayment.as_str(), key);
        let on_payment = OnPayment {
            payment_id,
            request: &request,
        };
        let signed = self.engine().sign(scope, &on_payment)?;
        let id = payment_id.to_owned();
        self.run(signed, move |payments, signed| async move {
            payments.claim_hold(signed, &id, wait, plan_cancel).await
        })
        .await
    }
}

fn plan_cancel(payment: &Payment) -> Result<HoldPlan, PaymentError> {
    if is_held(payment)? {
        Ok(HoldPlan::Pending(Pending::Cancel))
    } else {
        let refusal = answers::state_conflict(payment, "canceled");
        Ok(HoldPlan::Refused(refusal))
    }
}
