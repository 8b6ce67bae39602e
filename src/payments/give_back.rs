//! Refunding. The payment's row is locked while it is decided, and what a refund under way is to give back is reserved on it,
//! so that refunds together never pass what was captured.

use chrono::DateTime;
use uuid::Uuid;

use super::call::Called;
use super::service::{Passed, in_currency_of, locked, now, processing_refund, unsettled};
use super::{
    OnPayment, Operation, Payment, PaymentError, PaymentState, Payments, Refund, RefundRequest,
    RefundState, Reply, answers, settlement, store,
};
use crate::gateway::GatewayRefund;
use crate::idempotency::{IdempotencyKey, Permit, Plan, ScopedKey, Transaction, Wait};

impl Payments {
    /// Gives some of a payment back, once.
    pub async fn refund(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        payment_id: &str,
        request: &RefundRequest,
        wait: Wait,
    ) -> Result<Reply, PaymentError> {
        let scope = ScopedKey::new(merchant_id, Operation::RefundPayment.as_str(), key);
        let on_payment = OnPayment {
            payment_id,
            request,
        };
        let (plan_scope, plan_payment_id) = (scope.clone(), payment_id.to_owned());
        let plan_request = request.clone();
        let plan = move |mut tx: Transaction| async move {
            plan_refund(&mut tx, &plan_scope, &plan_payment_id, plan_request).await
        };
        let gate = self
            .claim_in_turn(&scope, payment_id, &on_payment, wait, plan)
            .await?;
        match self.pass(&scope, gate)? {
            Passed::Answered(reply) => Ok(reply),
            Passed::Mine(permit, Some((payment, refund))) => {
                self.give_back(permit, payment, refund).await
            }
            Passed::Mine(permit, None) => self.resume(permit).await,
        }
    }

    pub(super) async fn give_back(
        &self,
        permit: Permit,
        payment: Payment,
        refund: Refund,
    ) -> Result<Reply, PaymentError> {
        let asked = GatewayRefund {
            refund_id: refund.id.clone(),
            payment_id: payment.id.clone(),
            merchant_id: payment.merchant_id.clone(),
            account: None,
            transaction_id: payment.gateway_transaction_id.clone().unwrap_or_default(),
            amount: refund.amount,
        };
        let gateway = self.gateway();
        let (call, ask) = (gateway.refund(&asked), gateway.find_refund(&asked));
        let called = self.call(&permit, "refund", call, ask).await;
        let processing = processing_refund(&refund);
        match called {
            Called::Known(result) => {
                let settle = move |mut tx: Transaction| {
                    let (mut refund, result) = (refund.clone(), result.clone());
                    async move {
                        let merchant_id = refund.merchant_id.clone();
                        let mut payment = locked(&mut tx, &merchant_id, &refund.payment_id).await?;
                        let outcome =
                            settlement::refunded(&mut payment, &mut refund, result, now());
                        store::save_payment(&mut tx, &payment).await?;
                        store::save_refund(&mut tx, &refund).await?;
                        Ok::<_, sqlx::Error>(outcome)
                    }
                };
                let settled = self.settle_in_turn(permit, &payment.id, settle).await?;
                Ok(self.settled(settled, || processing))
            }
            Called::Nothing => {
                self.release(permit, &payment.id, move |mut tx| {
                    let refund = refund.clone();
                    async move {
                        let mut payment =
                            locked(&mut tx, &refund.merchant_id, &refund.payment_id).await?;
                        payment.refunding_minor -= refund.amount.minor();
                        store::save_payment(&mut tx, &payment).await?;
                        store::remove_refund(&mut tx, &refund.merchant_id, &refund.id).await
                    }
                })
                .await
            }
            Called::Unknown => Ok(unsettled(&permit, processing)),
        }
    }
}

async fn plan_refund(
    tx: &mut Transaction,
    scope: &ScopedKey,
    payment_id: &str,
    request: RefundRequest,
) -> Result<Plan<(Payment, Refund)>, PaymentError> {
    let merchant_id = scope.merchant_id.as_str();
    if let Some(made) = store::find_refund_of_key(tx, merchant_id, scope.key.as_str()).await? {
        return Ok(Plan::Expired {
            resource_id: made.id,
            created_at: made.created_at,
        });
    }
    let mut payment = store::lock_payment(tx, merchant_id, payment_id)
        .await?
        .ok_or(PaymentError::NotFound("payment"))?;
    let remaining = payment.in_currency(payment.refundable_minor());
    let refused = |payment: Payment, outcome| {
        Ok(Plan::Finish {
            resource_id: Some(payment.id),
            outcome,
        })
    };
    if !matches!(
        payment.state,
        PaymentState::Success | PaymentState::PartiallyRefunded
    ) {
        let outcome = answers::state_conflict(&payment, "refunded");
        return refused(payment, outcome);
    }
    let asked = in_currency_of(&payment, request.amount, remaining)?;
    if asked.minor() > remaining.minor() || remaining.minor() == 0 {
        let outcome = answers::amount_too_large(&payment, asked, remaining);
        return refused(payment, outcome);
    }
    let mut refund = Refund {
        merchant_id: merchant_id.to_owned(),
        id: format!("ref_{}", Uuid::now_v7()),
        payment_id: payment.id.clone(),
        idempotency_key: scope.key.to_string(),
        state: RefundState::Processing,
        amount: asked,
        reason: request.reason,
        gateway_refund_id: None,
        failure: None,
        created_at: DateTime::default(),
    };
    refund.created_at = store::insert_refund(tx, &refund).await?;
    payment.refunding_minor += asked.minor();
    store::save_payment(tx, &payment).await?;
    Ok(Plan::Call {
        resource_id: refund.id.clone(),
        work: (payment, refund),
    })
}
