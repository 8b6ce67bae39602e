//! Making a payment: claim, charge, settle.

use std::convert::Infallible;
use std::sync::Arc;

use chrono::DateTime;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::call::{Called, count_call};
use super::groups::{ClaimItem, Claimed, SettleItem};
use super::service::{Passed, now, processing_payment, unsettled};
use super::{
    Instrument, NewPayment, Operation, Payment, PaymentError, PaymentState, Payments, Reply,
    settlement, store,
};
use crate::cards::Card;
use crate::database::{self, Bounded};
use crate::gateway::{Charge, Decline, GatewayError, GatewayToken};
use crate::idempotency::{
    Answer, Attempt, Claim, Claimant, Engine, Grouped, IdempotencyError, IdempotencyKey, NewKey,
    Outcome, Permit, Remembered, ScopedKey, Settler, SignedRequest, Wait, may_have_committed,
};

/// What a process remembers of a request.
pub enum Recalled {
    /// Its answer.
    Reply(Reply),
    /// Nothing: the database is to be asked.
    Nothing(SignedRequest),
}

impl Payments {
    /// Looks for the stored answer to a request in this process's memory, without asking the database.
    pub fn recall_created(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        request: &NewPayment,
    ) -> Result<Recalled, PaymentError> {
        let scope = ScopedKey::new(merchant_id, Operation::CreatePayment.as_str(), key);
        let signed = self.engine().sign(scope.clone(), request)?;
        let Some(gate) = self.engine().recall::<Infallible>(&signed) else {
            return Ok(Recalled::Nothing(signed));
        };
        match self.pass(&scope, gate)? {
            Passed::Answered(reply) => Ok(Recalled::Reply(reply)),
            Passed::Mine(_, Some(never)) => match never {},
            Passed::Mine(_, None) => Ok(Recalled::Nothing(signed)),
        }
    }

    /// Makes a payment, once.
    pub async fn create(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        request: &NewPayment,
        wait: Wait,
    ) -> Result<Reply, PaymentError> {
        match self.recall_created(merchant_id, key, request)? {
            Recalled::Reply(reply) => Ok(reply),
            Recalled::Nothing(signed) => self.create_signed(signed, request, wait).await,
        }
    }

    /// Makes a payment, once, for a request that was not recalled.
    pub async fn create_signed(
        &self,
        signed: SignedRequest,
        request: &NewPayment,
        wait: Wait,
    ) -> Result<Reply, PaymentError> {
        let scope = signed.key().clone();
        let claim = CreateClaim {
            payments: self,
            request,
            payment: None,
        };
        let gate = self.engine().enter(signed, wait, claim).await?;
        match self.pass(&scope, gate)? {
            Passed::Answered(reply) => Ok(reply),
            Passed::Mine(permit, Some(payment)) => self.charge(permit, payment).await,
            Passed::Mine(permit, None) => self.resume(permit).await,
        }
    }

    pub(super) async fn charge(
        &self,
        permit: Permit,
        payment: Box<Payment>,
    ) -> Result<Reply, PaymentError> {
        let called = match (&payment.failure, &payment.gateway_token) {
            // The card was refused before it had a token: that is the outcome.
            (Some(decline), _) => Called::Known(Err(decline.clone())),
            (None, None) => Called::Unknown,
            (None, Some(token)) => {
                let charge = Charge {
                    payment_id: payment.id.clone(),
                    merchant_id: payment.merchant_id.clone(),
                    account: None,
                    amount: payment.amount,
                    token: token.clone(),
                    capture_method: payment.capture_method,
                    gateway_customer_id: None,
                    off_session: false,
                    description: payment.description.clone(),
                    claimed_at: permit.claim().created_at,
                };
                let gateway = self.gateway();
                self.call(
                    &permit,
                    "charge",
                    gateway.charge(&charge),
                    gateway.find_charge(&charge),
                )
                .await
            }
        };
        match called {
            Called::Known(result) => {
                let mut settled = Payment::clone(&payment);
                let outcome = settlement::charged(&mut settled, result, now());
                count_payment(settled.state);
                let settle = CreateSettle {
                    payments: self,
                    payment: Arc::new(settled),
                    outcome: Arc::new(outcome),
                };
                let settled = self.engine().settle_by(permit, &settle).await?;
                Ok(self.settled(settled, || processing_payment(&payment)))
            }
            Called::Nothing => {
                let Payment {
                    merchant_id, id, ..
                } = *payment;
                self.release(permit, move |mut tx| {
                    let (merchant_id, id) = (merchant_id.clone(), id.clone());
                    async move { store::remove_payment(&mut tx, &merchant_id, &id).await }
                })
                .await
            }
            Called::Unknown => Ok(unsettled(&permit, processing_payment(&payment))),
        }
    }
}

/// The claim of a payment: key and payment in one statement.
struct CreateClaim<'a> {
    payments: &'a Payments,
    request: &'a NewPayment,
    /// Made once, however many turns the claim takes: its card is turned into a token only once.
    payment: Option<Box<Payment>>,
}

impl Claimant<Box<Payment>> for CreateClaim<'_> {
    async fn try_claim(&mut self, key: NewKey) -> Result<Attempt<Box<Payment>>, IdempotencyError> {
        let payment = match self.payment.take() {
            Some(payment) => payment,
            None if self.is_worth_a_look()
                && self.remembered(key.columns().scope).await?.is_some() =>
            {
                return Ok(Attempt::InUse);
            }
            None => {
                let prepared = self.prepare(&key).await;
                Box::new(prepared.map_err(|e| IdempotencyError::Work(e.into()))?)
            }
        };
        let (payment, claimed) = self.payments.claim(key, payment).await?;
        match claimed {
            Some(Claimed::Found(found)) => Ok(Attempt::Found(found)),
            Some(Claimed::New(inserted)) => {
                let resource_id = payment.id.clone();
                Ok(Attempt::Claimed {
                    inserted,
                    resource_id,
                    work: payment,
                })
            }
            None => {
                self.payment = Some(payment);
                Ok(Attempt::InUse)
            }
        }
    }

    async fn remembered(
        &mut self,
        scope: &ScopedKey,
    ) -> Result<Option<Remembered>, IdempotencyError> {
        let mut connection = database::acquire(self.payments.pool()).await?;
        let key = scope.key.as_str();
        let made = store::find_payment_of_key(&mut connection, &scope.merchant_id, key)
            .bounded()
            .await?;
        Ok(made.map(|made| Remembered {
            resource_id: made.id,
            created_at: made.created_at,
        }))
    }
}

impl CreateClaim<'_> {
    /// True where a token costs a call, so that it is worth asking first whether the key is new.
    fn is_worth_a_look(&self) -> bool {
        self.payments.gateway().tokenizes_remotely()
            && matches!(self.request.instrument, Instrument::Card(_))
    }

    /// The payment to insert. A raw card becomes a token here, before anything is stored.
    async fn prepare(&self, key: &NewKey) -> Result<Payment, PaymentError> {
        let gateway = self.payments.gateway();
        let (token, card, failure) = match &self.request.instrument {
            Instrument::Token(token) => (Some(token.clone()), gateway.describe_token(token), None),
            Instrument::Card(card) => {
                let (token, failure) = self.tokenize(card).await?;
                (token, Some(card.summary()), failure)
            }
        };
        let scope = key.columns().scope;
        let request = self.request;
        Ok(Payment {
            merchant_id: scope.merchant_id.clone(),
            id: format!("pay_{}", Uuid::now_v7()),
            idempotency_key: scope.key.to_string(),
            state: PaymentState::Processing,
            amount: request.amount,
            captured_minor: 0,
            refunded_minor: 0,
            refunding_minor: 0,
            pending: None,
            capture_method: request.capture_method,
            gateway_type: gateway.kind().to_owned(),
            gateway_token: token,
            gateway_transaction_id: None,
            card,
            customer: request.customer.clone(),
            description: request.description.clone(),
            metadata: request.metadata.clone(),
            failure,
            created_at: DateTime::default(),
            updated_at: DateTime::default(),
        })
    }

    async fn tokenize(
        &self,
        card: &Card,
    ) -> Result<(Option<GatewayToken>, Option<Decline>), PaymentError> {
        let started = Instant::now();
        let gateway = self.payments.gateway();
        let gateway_timeout = self.payments.gateway_timeout();
        let answer = timeout(gateway_timeout, gateway.tokenize(card, None))
            .await
            .unwrap_or_else(|_| {
                Err(GatewayError::NothingHappened {
                    reason: "no token in time".to_owned(),
                })
            });
        count_call(gateway.kind(), "tokenize", &answer, started.elapsed());
        match answer {
            Ok(token) => Ok((Some(token), None)),
            Err(GatewayError::Declined(decline)) => Ok((None, Some(decline))),
            // A token charges nothing: whatever became of it, nothing happened.
            Err(error) => {
                tracing::warn!(%error, "the card could not be turned into a token");
                Err(PaymentError::GatewayUnavailable)
            }
        }
    }
}

impl Payments {
    /// Claims a payment's key together with the payment. `None`: the key is in use, and no answer was found.
    async fn claim(
        &self,
        key: NewKey,
        payment: Box<Payment>,
    ) -> Result<(Box<Payment>, Option<Claimed>), IdempotencyError> {
        let mut item = ClaimItem { key, payment };
        let mut was_repeated = false;
        let (mut payment, claimed) = loop {
            match self.claims().submit(item).await? {
                Grouped::Written(written, claimed) => break (written.payment, claimed),
                Grouped::Failed(failed, error) if may_have_committed(&error) => {
                    let claimed = self
                        .engine()
                        .claimed_after_all(&failed.key, &failed.payment.id)
                        .await?;
                    if claimed.is_some() {
                        break (failed.payment, claimed.map(Claimed::New));
                    }
                    if was_repeated {
                        return Err(IdempotencyError::Shared(error));
                    }
                    // It is certain that it was not: once more, on a new connection.
                    was_repeated = true;
                    item = failed;
                }
                Grouped::Failed(_, error) | Grouped::NotSent(_, error) => {
                    return Err(IdempotencyError::Shared(error));
                }
            }
        };
        if let Some(Claimed::New(claimed)) = &claimed {
            payment.created_at = claimed.created_at;
            payment.updated_at = claimed.created_at;
        }
        Ok((payment, claimed))
    }
}

/// The settle of a payment: key and payment in one statement.
struct CreateSettle<'a> {
    payments: &'a Payments,
    payment: Arc<Payment>,
    outcome: Arc<Outcome>,
}

impl Settler for CreateSettle<'_> {
    async fn try_settle(
        &self,
        _: &Engine,
        claim: &Claim,
    ) -> Result<Option<Answer>, IdempotencyError> {
        let item = SettleItem {
            attempt: claim.attempt,
            payment: Arc::clone(&self.payment),
            outcome: Arc::clone(&self.outcome),
        };
        match self.payments.settles().submit(item).await? {
            Grouped::Written(_, None) => Ok(None),
            Grouped::Written(SettleItem { outcome, .. }, Some(())) => Ok(Some(Answer {
                response: Arc::new(outcome.response().clone()),
                replayed: false,
                expires_at: claim.expires_at,
            })),
            Grouped::Failed(_, error) | Grouped::NotSent(_, error) => {
                Err(IdempotencyError::Shared(error))
            }
        }
    }
}

fn count_payment(state: PaymentState) {
    metrics::counter!("payonce_payments_total", "state" => state.as_str()).increment(1);
}
