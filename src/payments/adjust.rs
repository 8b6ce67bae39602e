//! Capturing and canceling what a payment holds. The payment's row is locked while it is decided, and there is at most one
//! of either under way.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::call::Called;
use super::service::{barred, in_currency_of, locked, now, processing_payment, unsettled};
use super::storable::Storable;
use super::{
    CancelRequest, CaptureRequest, OnPayment, Operation, Payment, PaymentError, PaymentState,
    Payments, Pending, Reply, answers, settlement, store,
};
use crate::gateway::{Cancel, Capture};
use crate::idempotency::{
    Fingerprinted, Gate, IdempotencyKey, Outcome, Permit, Plan, ScopedKey, Transaction, Wait,
};

impl Payments {
    /// Captures what a payment holds, once.
    pub async fn capture(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        payment_id: &str,
        request: &CaptureRequest,
        wait: Wait,
    ) -> Result<Reply, PaymentError> {
        let amount = request.amount;
        let plan = move |payment: &Payment| -> Result<Planned, PaymentError> {
            if !can_be_adjusted(payment)? {
                return Ok(Planned::Refused(answers::state_conflict(
                    payment, "captured",
                )));
            }
            let asked = in_currency_of(payment, amount, payment.amount)?;
            if asked.minor() > payment.amount.minor() {
                let refusal = answers::amount_too_large(payment, asked, payment.amount);
                return Ok(Planned::Refused(refusal));
            }
            Ok(Planned::Pending(Pending::Capture {
                minor: asked.minor(),
            }))
        };
        let on_payment = OnPayment {
            payment_id,
            request,
        };
        let scope = ScopedKey::new(merchant_id, Operation::CapturePayment.as_str(), key);
        let gate = self
            .claim_adjustment(&scope, payment_id, &on_payment, wait, plan)
            .await?;
        self.go_on(&scope, gate, |permit, payment| self.adjust(permit, payment))
            .await
    }

    /// Lets go of what a payment holds, once.
    pub async fn cancel(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        payment_id: &str,
        request: &CancelRequest,
        wait: Wait,
    ) -> Result<Reply, PaymentError> {
        let plan = |payment: &Payment| -> Result<Planned, PaymentError> {
            if can_be_adjusted(payment)? {
                Ok(Planned::Pending(Pending::Cancel))
            } else {
                Ok(Planned::Refused(answers::state_conflict(
                    payment, "canceled",
                )))
            }
        };
        let on_payment = OnPayment {
            payment_id,
            request,
        };
        let scope = ScopedKey::new(merchant_id, Operation::CancelPayment.as_str(), key);
        let gate = self
            .claim_adjustment(&scope, payment_id, &on_payment, wait, plan)
            .await?;
        self.go_on(&scope, gate, |permit, payment| self.adjust(permit, payment))
            .await
    }

    async fn claim_adjustment(
        &self,
        scope: &ScopedKey,
        payment_id: &str,
        request: &impl Fingerprinted,
        wait: Wait,
        plan: impl FnOnce(&Payment) -> Result<Planned, PaymentError> + Send + 'static,
    ) -> Result<Gate<Payment>, PaymentError> {
        let (merchant_id, id) = (scope.merchant_id.clone(), payment_id.to_owned());
        let payments = self.clone();
        let work = move |mut tx: Transaction| async move {
            let mut payment = store::lock_payment(&mut tx, &merchant_id, &id)
                .await
                .map_err(PaymentError::of_a_lock)?
                .ok_or(PaymentError::NotFound("payment"))?;
            payments.has_gateway_of(&payment)?;
            match plan(&payment)? {
                Planned::Refused(outcome) => Ok(Plan::Finish {
                    resource_id: Some(payment.id),
                    outcome,
                }),
                Planned::Pending(pending) => {
                    let prefix = match pending {
                        Pending::Capture { .. } => "cap",
                        Pending::Cancel => "can",
                    };
                    payment.pending = Some(pending);
                    payment.pending_attempt = Some(format!("{prefix}_{}", Uuid::now_v7()));
                    store::save_payment(&mut tx, &payment).await?;
                    Ok::<_, PaymentError>(Plan::Call {
                        resource_id: payment.id.clone(),
                        work: payment,
                    })
                }
            }
        };
        self.claim_in_turn(scope, payment_id, request, wait, work)
            .await
    }

    pub(super) async fn adjust(
        &self,
        permit: Permit,
        payment: Payment,
    ) -> Result<Reply, PaymentError> {
        let transaction_id = payment.gateway_transaction_id.clone().unwrap_or_default();
        let payment_id = payment.id.clone();
        let gateway = self.gateway_of(&payment.gateway_type)?;
        let processing = || processing_payment(&payment);
        let called = match payment.pending {
            Some(Pending::Capture { minor }) => {
                let amount = payment.in_currency(minor);
                let capture = Capture {
                    key: attempt_key(&payment, "capture"),
                    payment_id,
                    account: payment.gateway_account.clone(),
                    transaction_id,
                    amount,
                };
                let (call, ask) = (gateway.capture(&capture), gateway.find_capture(&capture));
                self.call(&permit, gateway, "capture", call, ask).await
            }
            Some(Pending::Cancel) => {
                let cancel = Cancel {
                    key: attempt_key(&payment, "cancel"),
                    payment_id,
                    account: payment.gateway_account.clone(),
                    transaction_id,
                };
                let (call, ask) = (gateway.cancel(&cancel), gateway.find_cancel(&cancel));
                self.call(&permit, gateway, "cancel", call, ask).await
            }
            None => Called::Unknown,
        };
        let (merchant_id, id) = (payment.merchant_id.clone(), payment.id.clone());
        match called {
            Called::Known(result) => {
                let settles = [result.clone(), result.bare()].map(|result| {
                    settle_by(&payment, move |payment| {
                        settlement::adjusted(payment, result.clone(), now())
                    })
                });
                let settled = self.settle_in_turn(permit, &payment.id, settles).await?;
                Ok(self.settled(settled, processing))
            }
            Called::Nothing(why) => {
                self.release(permit, &payment.id, why, processing, move |mut tx| {
                    let (merchant_id, id) = (merchant_id.clone(), id.clone());
                    async move {
                        let mut payment = locked(&mut tx, &merchant_id, &id).await?;
                        payment.end_pending();
                        store::save_payment(&mut tx, &payment).await
                    }
                })
                .await
            }
            Called::Unknown => Ok(unsettled(&permit, processing())),
            Called::Lapsed { reason } => {
                let settles = [reason, None].map(|reason| {
                    settle_by(&payment, move |payment| {
                        settlement::lapsed(payment, reason.clone(), now())
                    })
                });
                let settled = self.settle_in_turn(permit, &payment.id, settles).await?;
                Ok(self.settled(settled, processing))
            }
            Called::Barred { reason } => Err(barred(reason)),
            Called::Lost => self.give_way(permit, processing).await,
        }
    }
}

/// The work of a settle: what `change` makes of the payment's row, and its answer.
fn settle_by(
    payment: &Payment,
    change: impl Fn(&mut Payment) -> Outcome + Clone + Send + Sync + 'static,
) -> impl Fn(Transaction) -> BoxFuture<'static, sqlx::Result<Outcome>> + Send + Sync + 'static {
    let (merchant_id, id) = (payment.merchant_id.clone(), payment.id.clone());
    move |mut tx| {
        let (merchant_id, id, change) = (merchant_id.clone(), id.clone(), change.clone());
        async move {
            let mut payment = locked(&mut tx, &merchant_id, &id).await?;
            let outcome = change(&mut payment);
            store::save_payment(&mut tx, &payment).await?;
            Ok(outcome)
        }
        .boxed()
    }
}

/// The gateway's key of the capture or cancel under way. One that an older version of this service began has that version's key.
fn attempt_key(payment: &Payment, operation: &str) -> String {
    match &payment.pending_attempt {
        Some(attempt) => attempt.clone(),
        None => format!("{}:{operation}", payment.id),
    }
}

/// What a capture or cancel is to do.
enum Planned {
    Pending(Pending),
    Refused(Outcome),
}

/// Whether the payment holds money. What is under way is not a state to be refused by: it ends.
fn can_be_adjusted(payment: &Payment) -> Result<bool, PaymentError> {
    payment.is_idle()?;
    Ok(payment.state == PaymentState::Authorized)
}
