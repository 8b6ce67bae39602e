//! Creating: charges a card, or holds its money.

mod claim;
mod settle;

use chrono::{DateTime, Utc};

use self::claim::CreateClaim;
use self::settle::CreateSettle;
use super::processing_payment;
use crate::gateway::{Charge, Charged, GatewayToken};
use crate::idempotency::grouped::SignedRequest;
use crate::idempotency::{
    Answer, Gate, IdempotencyKey, Permit, ScopedKey, Settled, Transaction, Wait,
};
use crate::payments::gateway_call::{Called, Unresolved};
use crate::payments::service::ClaimedWork;
use crate::payments::settle::answer_of;
use crate::payments::store::RowLocations;
use crate::payments::{
    NewPayment, Operation, Payment, PaymentError, PaymentState, Payments, store,
};

impl Payments {
    /// Makes a payment, once. Dropping this future stops nothing that has begun.
    pub async fn create(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        request: NewPayment,
        wait: Wait,
    ) -> Result<Answer, PaymentError> {
        let scope = ScopedKey::new(merchant_id, Operation::CreatePayment.as_str(), key);
        let signed = self.engine().sign(scope, &request)?;
        self.run(signed, move |payments, signed| async move {
            payments.claim_create(signed, &request, wait).await
        })
        .await
    }

    async fn claim_create(
        &self,
        signed: SignedRequest,
        request: &NewPayment,
        wait: Wait,
    ) -> Result<Gate<CreateWork>, PaymentError> {
        let claim = CreateClaim {
            payments: self,
            request,
            payment: None,
        };
        Ok(self.engine().enter(signed, wait, claim).await?)
    }
}

/// A claimed payment.
pub(super) struct CreateWork {
    payment: Box<Payment>,
    /// Where its claim has put its rows. `None` if another claim did.
    locations: Option<RowLocations>,
}

impl ClaimedWork for CreateWork {
    async fn load(payments: &Payments, permit: &Permit) -> Result<Self, PaymentError> {
        let merchant_id = &permit.claim().scope.merchant_id;
        let payment = payments.find(merchant_id, permit.resource_id()).await?;
        Ok(Self {
            payment: Box::new(payment),
            locations: None,
        })
    }

    async fn execute(self, payments: &Payments, permit: Permit) -> Result<Answer, PaymentError> {
        let called = self.charge(payments, &permit).await?;
        let Self { payment, locations } = self;
        let processing = || processing_payment(&payment);
        match called {
            Called::Known(result) => {
                let settle = CreateSettle::new(payments, &payment, result, locations);
                let settled = payments.engine().settle_by(permit, &settle).await?;
                // Another process counts what it settled itself.
                if matches!(settled, Settled::Stored(_)) {
                    count_payment(settle.payment.state);
                }
                Ok(answer_of(settled, processing))
            }
            Called::NothingHappened(reason) => {
                let (merchant_id, id) = (payment.merchant_id.clone(), payment.id.clone());
                let undo = move |mut tx: Transaction| {
                    let (merchant_id, id) = (merchant_id.clone(), id.clone());
                    async move { store::remove_payment(&mut tx, &merchant_id, &id).await }
                };
                let released = payments.release(permit, &payment.id, reason, processing, undo);
                Box::pin(released).await
            }
            Called::Unresolved(why) => Box::pin(payments.leave_open(permit, why, processing)).await,
            // A new charge has no hold that could lapse, so this says nothing about it.
            Called::HoldLapsed { .. } => {
                Box::pin(payments.leave_open(permit, Unresolved::Unknown, processing)).await
            }
        }
    }
}

impl CreateWork {
    async fn charge(
        &self,
        payments: &Payments,
        permit: &Permit,
    ) -> Result<Called<Charged>, PaymentError> {
        let Self { payment, .. } = self;
        match (&payment.failure, &payment.gateway_token) {
            // The card was declined before it had a token, which is the outcome.
            (Some(decline), _) => Ok(Called::Known(Err(decline.clone()))),
            (None, None) => Ok(Called::Unresolved(Unresolved::Unknown)),
            (None, Some(token)) => {
                let charge = charge_of(payment, token, permit.claim().created_at);
                let gateway = payments.gateway_of(&payment.gateway_type)?;
                let (call, ask) = (gateway.charge(&charge), gateway.find_charge(&charge));
                Ok(payments.call(permit, gateway, "charge", call, ask).await)
            }
        }
    }
}

fn charge_of(payment: &Payment, token: &GatewayToken, claimed_at: DateTime<Utc>) -> Charge {
    Charge {
        payment_id: payment.id.clone(),
        merchant_id: payment.merchant_id.clone(),
        account: payment.gateway_account.clone(),
        amount: payment.amount,
        token: token.clone(),
        capture_method: payment.capture_method,
        gateway_customer_id: payment.customer.gateway_customer_id.clone(),
        off_session: payment.off_session,
        description: payment.description.clone(),
        claimed_at,
    }
}

/// Counts an outcome.
fn count_payment(state: PaymentState) {
    metrics::counter!("payonce_payments_total", "state" => state.as_str()).increment(1);
}
