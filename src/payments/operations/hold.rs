//! Shared by captures and cancels. The payment's row is locked while one is planned, and a payment has at most one of either under
//! way.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{lock_requested, processing_payment};
use crate::gateway::{Cancel, Capture};
use crate::idempotency::grouped::SignedRequest;
use crate::idempotency::{Answer, Gate, Outcome, Permit, Plan, Transaction, Wait};
use crate::payments::gateway_call::{Called, Unresolved};
use crate::payments::sanitize::Sanitize;
use crate::payments::service::ClaimedWork;
use crate::payments::transitions::now;
use crate::payments::{Payment, PaymentError, PaymentState, Payments, Pending, store, transitions};

/// A planned capture or cancel.
pub(super) enum HoldPlan {
    Pending(Pending),
    Refused(Outcome),
}

/// Returns whether the payment holds money, or an error while something is under way on it, which will end.
pub(super) fn is_held(payment: &Payment) -> Result<bool, PaymentError> {
    payment.check_idle()?;
    Ok(payment.state == PaymentState::Authorized)
}

impl Payments {
    /// Claims a key for a capture or cancel, and notes it on the payment.
    pub(super) async fn claim_hold(
        &self,
        signed: SignedRequest,
        payment_id: &str,
        wait: Wait,
        plan: impl FnOnce(&Payment) -> Result<HoldPlan, PaymentError> + Send + 'static,
    ) -> Result<Gate<HoldWork>, PaymentError> {
        let (merchant_id, id) = (signed.key().merchant_id.clone(), payment_id.to_owned());
        let payments = self.clone();
        let claim = move |mut tx: Transaction| async move {
            let mut payment = lock_requested(&mut tx, &merchant_id, &id).await?;
            payments.check_gateway_of(&payment)?;
            let pending = match plan(&payment)? {
                HoldPlan::Pending(pending) => pending,
                HoldPlan::Refused(outcome) => {
                    return Ok(Plan::Finish {
                        resource_id: Some(payment.id),
                        outcome,
                    });
                }
            };
            let prefix = match pending {
                Pending::Capture { .. } => "cap",
                Pending::Cancel => "can",
            };
            payment.pending = Some(pending);
            payment.pending_attempt = Some(format!("{prefix}_{}", Uuid::now_v7()));
            store::save_payment(&mut tx, &payment).await?;
            Ok(Plan::Call {
                resource_id: payment.id.clone(),
                work: HoldWork(payment),
            })
        };
        self.claim_in_turn(signed, payment_id, wait, claim).await
    }
}

/// A claimed capture or cancel: the one that is pending on its payment.
pub(super) struct HoldWork(Payment);

impl ClaimedWork for HoldWork {
    async fn load(payments: &Payments, permit: &Permit) -> Result<Self, PaymentError> {
        let merchant_id = &permit.claim().scope.merchant_id;
        payments
            .find(merchant_id, permit.resource_id())
            .await
            .map(Self)
    }

    async fn execute(self, payments: &Payments, permit: Permit) -> Result<Answer, PaymentError> {
        let Self(payment) = &self;
        let called = self.call(payments, &permit).await?;
        let processing = || processing_payment(payment);
        match called {
            Called::Known(result) => {
                let settles = [result.clone(), result.without_text()].map(|result| {
                    settle_by(payment, move |payment| {
                        transitions::pending_ended(payment, result.clone(), now())
                    })
                });
                payments
                    .settle_in_turn(permit, &payment.id, settles, processing)
                    .await
            }
            Called::HoldLapsed { reason } => {
                let settles = [reason, None].map(|reason| {
                    settle_by(payment, move |payment| {
                        transitions::hold_lapsed(payment, reason.clone(), now())
                    })
                });
                payments
                    .settle_in_turn(permit, &payment.id, settles, processing)
                    .await
            }
            Called::NothingHappened(reason) => {
                let undo = undo_of(payment);
                payments
                    .release(permit, &payment.id, reason, processing, undo)
                    .await
            }
            Called::Unresolved(why) => payments.leave_open(permit, why, processing).await,
        }
    }
}

impl HoldWork {
    async fn call(&self, payments: &Payments, permit: &Permit) -> Result<Called<()>, PaymentError> {
        let Self(payment) = self;
        let gateway = payments.gateway_of(&payment.gateway_type)?;
        let transaction_id = payment.gateway_transaction_id.clone().unwrap_or_default();
        Ok(match payment.pending {
            Some(Pending::Capture { amount }) => {
                let capture = Capture {
                    key: attempt_key(payment, "capture"),
                    payment_id: payment.id.clone(),
                    account: payment.gateway_account.clone(),
                    transaction_id,
                    amount,
                };
                let (call, ask) = (gateway.capture(&capture), gateway.find_capture(&capture));
                payments.call(permit, gateway, "capture", call, ask).await
            }
            Some(Pending::Cancel) => {
                let cancel = Cancel {
                    key: attempt_key(payment, "cancel"),
                    payment_id: payment.id.clone(),
                    account: payment.gateway_account.clone(),
                    transaction_id,
                };
                let (call, ask) = (gateway.cancel(&cancel), gateway.find_cancel(&cancel));
                payments.call(permit, gateway, "cancel", call, ask).await
            }
            None => Called::Unresolved(Unresolved::Unknown),
        })
    }
}

/// The work of a settle: applies `change` to the payment's row.
fn settle_by(
    payment: &Payment,
    change: impl Fn(&mut Payment) -> Outcome + Clone + Send + Sync + 'static,
) -> impl Fn(Transaction) -> BoxFuture<'static, sqlx::Result<Outcome>> + Send + Sync + 'static {
    let (merchant_id, id) = (payment.merchant_id.clone(), payment.id.clone());
    move |mut tx| {
        let (merchant_id, id, change) = (merchant_id.clone(), id.clone(), change.clone());
        async move {
            let mut payment = store::lock_claimed(&mut tx, &merchant_id, &id).await?;
            let outcome = change(&mut payment);
            store::save_payment(&mut tx, &payment).await?;
            Ok(outcome)
        }
        .boxed()
    }
}

/// The work of a release: nothing is pending on the payment any more.
fn undo_of(
    payment: &Payment,
) -> impl Fn(Transaction) -> BoxFuture<'static, sqlx::Result<()>> + Send + Sync + 'static {
    let (merchant_id, id) = (payment.merchant_id.clone(), payment.id.clone());
    move |mut tx| {
        let (merchant_id, id) = (merchant_id.clone(), id.clone());
        async move {
            let mut payment = store::lock_claimed(&mut tx, &merchant_id, &id).await?;
            payment.end_pending();
            store::save_payment(&mut tx, &payment).await
        }
        .boxed()
    }
}

/// The gateway's key of the pending capture or cancel. One that an older version of this service began has that version's key.
fn attempt_key(payment: &Payment, operation: &str) -> String {
    match &payment.pending_attempt {
        Some(attempt) => attempt.clone(),
        None => format!("{}:{operation}", payment.id),
    }
}
