//! Refunding. The payment's row is locked while it is decided, and what a refund under way is to give back is reserved on it,
//! so that refunds together never pass what was captured.

use chrono::DateTime;
use uuid::Uuid;

use super::call::Called;
use super::service::{barred, in_currency_of, locked, now, processing_refund, unsettled};
use super::storable::Storable;
use super::{
    OnPayment, Operation, Payment, PaymentError, PaymentState, Payments, Refund, RefundRequest,
    RefundState, Reply, answers, settlement, store,
};
use crate::gateway::{Decline, GatewayRefund, Refunded};
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
        let (plan_request, payments) = (request.clone(), self.clone());
        let plan = move |mut tx: Transaction| async move {
            plan_refund(
                &payments,
                &mut tx,
                &plan_scope,
                &plan_payment_id,
                plan_request,
            )
            .await
        };
        let gate = self
            .claim_in_turn(&scope, payment_id, &on_payment, wait, plan)
            .await?;
        self.go_on(&scope, gate, |permit, (payment, refund)| {
            self.give_back(permit, payment, refund)
        })
        .await
    }

    pub(super) async fn give_back(
        &self,
        permit: Permit,
        payment: Payment,
        refund: Refund,
    ) -> Result<Reply, PaymentError> {
        let asked = GatewayRefund::of(&payment, &refund);
        let gateway = self.gateway_of(&payment.gateway_type)?;
        let (call, ask) = (gateway.refund(&asked), gateway.find_refund(&asked));
        let called = self.call(&permit, gateway, "refund", call, ask).await;
        let processing = processing_refund(&refund);
        match called {
            Called::Known(result) => {
                let settle = |result: Result<Refunded, Decline>| {
                    let refund = refund.clone();
                    move |mut tx: Transaction| {
                        let (mut refund, result) = (refund.clone(), result.clone());
                        async move {
                            let merchant_id = refund.merchant_id.clone();
                            let mut payment =
                                locked(&mut tx, &merchant_id, &refund.payment_id).await?;
                            let outcome =
                                settlement::refunded(&mut payment, &mut refund, result, now());
                            store::save_payment(&mut tx, &payment).await?;
                            store::save_refund(&mut tx, &refund).await?;
                            Ok::<_, sqlx::Error>(outcome)
                        }
                    }
                };
                let settles = [settle(result.clone()), settle(result.bare())];
                let settled = self.settle_in_turn(permit, &payment.id, settles).await?;
                Ok(self.settled(settled, || processing))
            }
            Called::Nothing(why) => {
                let processing = move || processing;
                self.release(permit, &payment.id, why, processing, move |mut tx| {
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
            Called::Unknown | Called::Lapsed { .. } => Ok(unsettled(&permit, processing)),
            Called::Barred { reason } => Err(barred(reason)),
            Called::Lost => self.give_way(permit, move || processing).await,
        }
    }
}

impl GatewayRefund {
    /// What is asked of the gateway for this refund.
    pub(super) fn of(payment: &Payment, refund: &Refund) -> Self {
        Self {
            refund_id: refund.id.clone(),
            payment_id: payment.id.clone(),
            merchant_id: payment.merchant_id.clone(),
            account: payment.gateway_account.clone(),
            transaction_id: payment.gateway_transaction_id.clone().unwrap_or_default(),
            amount: refund.amount,
        }
    }
}

async fn plan_refund(
    payments: &Payments,
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
        .await
        .map_err(PaymentError::of_a_lock)?
        .ok_or(PaymentError::NotFound("payment"))?;
    payments.has_gateway_of(&payment)?;
    payment.is_idle()?;
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
    let is_short = asked.minor() > remaining.minor() || remaining.minor() == 0;
    if is_short && asked.minor() <= remaining.minor() + payment.refunding_minor {
        // Enough is left if the refund that has reserved it fails.
        return Err(PaymentError::Busy("a refund of the payment"));
    }
    if is_short {
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
