//! Refunding. The payment's row is locked while a refund is planned, and the amount of a refund under way is reserved on it, so
//! that refunds together never exceed what was captured.

use chrono::DateTime;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{amount_in_currency_of, lock_requested};
use crate::gateway::{Decline, Refunded};
use crate::idempotency::{
    Answer, IdempotencyKey, Outcome, Permit, Plan, ScopedKey, StoredResponse, Transaction, Wait,
};
use crate::money::Amount;
use crate::payments::gateway_call::{Called, Unresolved};
use crate::payments::sanitize::Sanitize;
use crate::payments::service::ClaimedWork;
use crate::payments::transitions::now;
use crate::payments::{
    OnPayment, Operation, Payment, PaymentError, PaymentState, Payments, Refund, RefundRequest,
    RefundState, answers, store, transitions,
};

impl Payments {
    /// Refunds all or a part of a payment, once. Dropping this future stops nothing that has begun.
    pub async fn refund(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        payment_id: &str,
        request: RefundRequest,
        wait: Wait,
    ) -> Result<Answer, PaymentError> {
        let scope = ScopedKey::new(merchant_id, Operation::RefundPayment.as_str(), key);
        let on_payment = OnPayment {
            payment_id,
            request: &request,
        };
        let signed = self.engine().sign(scope, &on_payment)?;
        let id = payment_id.to_owned();
        self.run(signed, move |payments, signed| async move {
            let planner = RefundPlan {
                payments: payments.clone(),
                scope: signed.key().clone(),
                payment_id: id.clone(),
                request,
            };
            let plan = move |mut tx: Transaction| async move { planner.plan(&mut tx).await };
            payments.claim_in_turn(signed, &id, wait, plan).await
        })
        .await
    }
}

/// Plans a refund inside of its claim's transaction.
struct RefundPlan {
    payments: Payments,
    scope: ScopedKey,
    payment_id: String,
    request: RefundRequest,
}

impl RefundPlan {
    async fn plan(self, tx: &mut Transaction) -> Result<Plan<RefundWork>, PaymentError> {
        let merchant_id = self.scope.merchant_id.as_str();
        let key = self.scope.key.as_str();
        if let Some(made) = store::find_refund_of_key(tx, merchant_id, key).await? {
            return Ok(Plan::Expired {
                resource_id: made.id,
                created_at: made.created_at,
            });
        }
        let payment = lock_requested(tx, merchant_id, &self.payment_id).await?;
        self.payments.check_gateway_of(&payment)?;
        payment.check_idle()?;
        match check_refundable(&payment, &self.request)? {
            Ok(amount) => self.reserve(tx, payment, amount).await,
            Err(outcome) => Ok(Plan::Finish {
                resource_id: Some(payment.id),
                outcome,
            }),
        }
    }

    async fn reserve(
        self,
        tx: &mut Transaction,
        mut payment: Payment,
        amount: Amount,
    ) -> Result<Plan<RefundWork>, PaymentError> {
        let mut refund = Refund {
            merchant_id: payment.merchant_id.clone(),
            id: format!("ref_{}", Uuid::now_v7()),
            payment_id: payment.id.clone(),
            idempotency_key: self.scope.key.to_string(),
            state: RefundState::Processing,
            amount,
            reason: self.request.reason,
            gateway_refund_id: None,
            failure: None,
            created_at: DateTime::default(),
        };
        refund.created_at = store::insert_refund(tx, &refund).await?;
        payment.refunding = payment.refunding.checked_add(amount)?;
        store::save_payment(tx, &payment).await?;
        Ok(Plan::Call {
            resource_id: refund.id.clone(),
            work: RefundWork { payment, refund },
        })
    }
}

/// Returns the amount to refund, or the refusal to store.
fn check_refundable(
    payment: &Payment,
    request: &RefundRequest,
) -> Result<Result<Amount, Outcome>, PaymentError> {
    if !matches!(
        payment.state,
        PaymentState::Success | PaymentState::PartiallyRefunded
    ) {
        return Ok(Err(answers::state_conflict(payment, "refunded")));
    }
    let remaining = payment.refundable()?;
    let amount = amount_in_currency_of(payment, request.amount, remaining)?;
    let is_short = remaining.is_zero() || amount.exceeds(remaining)?;
    if !is_short {
        return Ok(Ok(amount));
    }
    let with_reserved = remaining.checked_add(payment.refunding)?;
    if !amount.exceeds(with_reserved)? {
        // Enough would be left if a refund that has reserved it failed.
        return Err(PaymentError::Busy("a refund of the payment"));
    }
    Ok(Err(answers::amount_too_large(payment, amount, remaining)))
}

/// A claimed refund, with its payment.
pub(super) struct RefundWork {
    payment: Payment,
    refund: Refund,
}

impl ClaimedWork for RefundWork {
    async fn load(payments: &Payments, permit: &Permit) -> Result<Self, PaymentError> {
        let merchant_id = &permit.claim().scope.merchant_id;
        let refund = payments
            .find_refund(merchant_id, permit.resource_id())
            .await?;
        let payment = payments.find(merchant_id, &refund.payment_id).await?;
        Ok(Self { payment, refund })
    }

    async fn execute(self, payments: &Payments, permit: Permit) -> Result<Answer, PaymentError> {
        let Self { payment, refund } = &self;
        let asked = refund.to_gateway(payment);
        let gateway = payments.gateway_of(&payment.gateway_type)?;
        let (call, ask) = (gateway.refund(&asked), gateway.find_refund(&asked));
        let called = payments.call(&permit, gateway, "refund", call, ask).await;
        let processing = || processing_refund(refund);
        match called {
            Called::Known(result) => {
                let settles =
                    [result.clone(), result.without_text()].map(|result| settle_by(refund, result));
                payments
                    .settle_in_turn(permit, &payment.id, settles, processing)
                    .await
            }
            Called::NothingHappened(reason) => {
                let undo = undo_of(refund);
                payments
                    .release(permit, &payment.id, reason, processing, undo)
                    .await
            }
            Called::Unresolved(why) => payments.leave_open(permit, why, processing).await,
            // A refund has no hold, so this says nothing about it.
            Called::HoldLapsed { .. } => {
                payments
                    .leave_open(permit, Unresolved::Unknown, processing)
                    .await
            }
        }
    }
}

/// The work of a settle: applies the gateway's result to the refund and its payment.
fn settle_by(
    refund: &Refund,
    result: Result<Refunded, Decline>,
) -> impl Fn(Transaction) -> BoxFuture<'static, sqlx::Result<Outcome>> + Send + Sync + 'static {
    let refund = refund.clone();
    move |mut tx| {
        let (mut refund, result) = (refund.clone(), result.clone());
        async move {
            let mut payment =
                store::lock_claimed(&mut tx, &refund.merchant_id, &refund.payment_id).await?;
            let outcome = transitions::refunded(&mut payment, &mut refund, result, now())?;
            store::save_payment(&mut tx, &payment).await?;
            store::save_refund(&mut tx, &refund).await?;
            Ok(outcome)
        }
        .boxed()
    }
}

/// The work of a release: removes the refund and its reservation.
fn undo_of(
    refund: &Refund,
) -> impl Fn(Transaction) -> BoxFuture<'static, sqlx::Result<()>> + Send + Sync + 'static {
    let refund = refund.clone();
    move |mut tx| {
        let refund = refund.clone();
        async move {
            let mut payment =
                store::lock_claimed(&mut tx, &refund.merchant_id, &refund.payment_id).await?;
            payment.refunding = payment.refunding.checked_sub(refund.amount)?;
            store::save_payment(&mut tx, &payment).await?;
            store::remove_refund(&mut tx, &refund.merchant_id, &refund.id).await
        }
        .boxed()
    }
}

fn processing_refund(refund: &Refund) -> StoredResponse {
    answers::processing(refund, answers::refund_location(&refund.id))
}
