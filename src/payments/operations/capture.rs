//! Capturing: takes all or a part of what a payment holds.

use super::amount_in_currency_of;
use super::hold::{HoldPlan, is_held};
use crate::idempotency::{Answer, IdempotencyKey, ScopedKey, Wait};
use crate::payments::{
    CaptureRequest, OnPayment, Operation, Payment, PaymentError, Payments, Pending, answers,
};

impl Payments {
    /// Captures what a payment holds, once. Dropping this future stops nothing that has begun.
    pub async fn capture(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        payment_id: &str,
        request: CaptureRequest,
        wait: Wait,
    ) -> Result<Answer, PaymentError> {
        let scope = ScopedKey::new(merchant_id, Operation::CapturePayment.as_str(), key);
        let on_payment = OnPayment {
            payment_id,
            request: &request,
        };
        let signed = self.engine().sign(scope, &on_payment)?;
        let id = payment_id.to_owned();
        let plan = move |payment: &Payment| plan_capture(payment, &request);
        self.run(signed, move |payments, signed| async move {
            payments.claim_hold(signed, &id, wait, plan).await
        })
        .await
    }
}

fn plan_capture(payment: &Payment, request: &CaptureRequest) -> Result<HoldPlan, PaymentError> {
    if !is_held(payment)? {
        let refusal = answers::state_conflict(payment, "captured");
        return Ok(HoldPlan::Refused(refusal));
    }
    let amount = amount_in_currency_of(payment, request.amount, payment.amount)?;
    if amount.exceeds(payment.amount)? {
        let refusal = answers::amount_too_large(payment, amount, payment.amount);
        return Ok(HoldPlan::Refused(refusal));
    }
    Ok(HoldPlan::Pending(Pending::Capture { amount }))
}
