//! Making a payment: claim, charge, settle.

use std::convert::Infallible;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::call::{Called, count_call};
use super::groups::{ClaimItem, Claimed, SettleItem};
use super::service::{Passed, barred, now, processing_payment, unsettled};
use super::storable::{self, Storable};
use super::{
    Instrument, NewPayment, Operation, Payment, PaymentError, PaymentState, Payments, Reply,
    refused_settle, settlement, store,
};
use crate::cards::Card;
use crate::database::{self, Bounded};
use crate::gateway::{Charge, Charged, Decline, GatewayError, GatewayToken};
use crate::idempotency::{
    Answer, Attempt, Claim, Claimant, Engine, Grouped, IdempotencyError, IdempotencyKey, NewKey,
    Outcome, Permit, Remembered, ScopedKey, Settler, SignedRequest, Wait, may_have_committed,
};

impl Payments {
    /// Makes a payment, once. Dropping this future stops nothing that has begun.
    pub async fn create(
        &self,
        merchant_id: &str,
        key: IdempotencyKey,
        request: NewPayment,
        wait: Wait,
    ) -> Result<Reply, PaymentError> {
        let scope = ScopedKey::new(merchant_id, Operation::CreatePayment.as_str(), key);
        let signed = self.engine().sign(scope.clone(), &request)?;
        // A replay from memory needs no task.
        if let Some(gate) = self.engine().recall::<Infallible>(&signed) {
            match self.pass(&scope, gate).await? {
                Passed::Answered(reply) => return Ok(reply),
                Passed::Mine(_, Some(never)) => match never {},
                Passed::Mine(_, None) => {}
            }
        }
        let payments = self.clone();
        let create = async move { payments.create_signed(signed, &request, wait).await };
        self.engine().run(create).await?
    }

    async fn create_signed(
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
        self.go_on(&scope, gate, |permit, payment| self.charge(permit, payment))
            .await
    }

    pub(super) async fn charge(
        &self,
        permit: Permit,
        payment: Box<Payment>,
    ) -> Result<Reply, PaymentError> {
        let processing = || processing_payment(&payment);
        let called = match (&payment.failure, &payment.gateway_token) {
            // The card was refused before it had a token: that is the outcome.
            (Some(decline), _) => Called::Known(Err(decline.clone())),
            (None, None) => Called::Unknown,
            (None, Some(token)) => {
                let charge = Charge {
                    payment_id: payment.id.clone(),
                    merchant_id: payment.merchant_id.clone(),
                    account: payment.gateway_account.clone(),
                    amount: payment.amount,
                    token: token.clone(),
                    capture_method: payment.capture_method,
                    gateway_customer_id: payment.customer.gateway_customer_id.clone(),
                    off_session: payment.off_session,
                    description: payment.description.clone(),
                    claimed_at: permit.claim().created_at,
                };
                let gateway = self.gateway_of(&payment.gateway_type)?;
                let (call, ask) = (gateway.charge(&charge), gateway.find_charge(&charge));
                self.call(&permit, gateway, "charge", call, ask).await
            }
        };
        match called {
            Called::Known(result) => {
                let settle = CreateSettle::new(self, &payment, result);
                count_payment(settle.payment.state);
                let settled = self.engine().settle_by(permit, &settle).await?;
                Ok(self.settled(settled, processing))
            }
            Called::Nothing(why) => {
                let (merchant_id, id) = (payment.merchant_id.clone(), payment.id.clone());
                self.release(permit, &payment.id, why, processing, move |mut tx| {
                    let (merchant_id, id) = (merchant_id.clone(), id.clone());
                    async move { store::remove_payment(&mut tx, &merchant_id, &id).await }
                })
                .await
            }
            // A new charge holds nothing yet that could lapse: whatever it was, the gateway is asked again.
            Called::Unknown | Called::Lapsed { .. } => Ok(unsettled(&permit, processing())),
            Called::Barred { reason } => Err(barred(reason)),
            Called::Lost => self.give_way(permit, processing).await,
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
        let _turn = self.payments.turns().to_look(&scope.merchant_id).await?;
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

    async fn may_take_over(
        &mut self,
        scope: &ScopedKey,
        resource_id: &str,
    ) -> Result<(), IdempotencyError> {
        let allowed = self.payments.may_take_over(scope, resource_id).await;
        allowed.map_err(PaymentError::into_engine)
    }
}

impl CreateClaim<'_> {
    /// True where a token costs a call, so that it is worth asking first whether the key is new.
    fn is_worth_a_look(&self) -> bool {
        self.payments.default_gateway().tokenizes_remotely()
            && matches!(self.request.instrument, Instrument::Card(_))
    }

    /// The payment to insert. A raw card becomes a token here, before anything is stored.
    async fn prepare(&self, key: &NewKey) -> Result<Payment, PaymentError> {
        let gateway = self.payments.default_gateway();
        let scope = key.columns().scope;
        let account = match gateway.has_accounts() {
            true => self.payments.stripe_account(&scope.merchant_id).await?,
            false => None,
        };
        let (token, card, failure) = match &self.request.instrument {
            Instrument::Token(token) => {
                let card = gateway.describe_token(token).and_then(storable::card);
                (Some(token.clone()), card, None)
            }
            Instrument::Card(card) => {
                let (token, failure) = self.tokenize(card, account.as_deref()).await?;
                (token, Some(card.summary()), failure)
            }
        };
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
            pending_attempt: None,
            capture_method: request.capture_method,
            gateway_type: gateway.kind().to_owned(),
            gateway_account: account.map(|account| account.to_string()),
            gateway_token: token,
            gateway_transaction_id: None,
            card,
            customer: request.customer.clone(),
            off_session: request.off_session,
            cancellation_reason: None,
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
        account: Option<&str>,
    ) -> Result<(Option<GatewayToken>, Option<Decline>), PaymentError> {
        let started = Instant::now();
        let gateway = self.payments.default_gateway();
        let gateway_timeout = self.payments.gateway_timeout();
        let answer = timeout(gateway_timeout, gateway.tokenize(card, account))
            .await
            .unwrap_or_else(|_| {
                Err(GatewayError::NothingHappened {
                    reason: "no token in time".to_owned(),
                })
            });
        count_call(gateway.kind(), "tokenize", &answer, started.elapsed());
        match storable::answer(answer) {
            Ok(token) => Ok((Some(token), None)),
            Err(GatewayError::Declined(decline)) => Ok((None, Some(decline))),
            Err(GatewayError::Refused(refusal)) => Err(PaymentError::GatewayRefused(refusal)),
            Err(GatewayError::Misconfigured { reason }) => {
                tracing::error!(reason, "the gateway refuses this service");
                Err(PaymentError::GatewayMisconfigured {
                    reason,
                    may_have_charged: false,
                })
            }
            // A token charges nothing: whatever became of it, nothing happened.
            Err(error) => {
                tracing::warn!(%error, "the card could not be turned into a token");
                Err(PaymentError::GatewayUnavailable)
            }
        }
    }
}

impl Payments {
    /// Claims a payment's key together with the payment. Returns `None` where the key is in use and no answer was found.
    ///
    /// A claim whose answer is lost may be carried out at any time later: it is found, or sent a second time, or its outcome is
    /// not known. It is never told that it was not made.
    async fn claim(
        &self,
        key: NewKey,
        payment: Box<Payment>,
    ) -> Result<(Box<Payment>, Option<Claimed>), IdempotencyError> {
        let mut item = ClaimItem { key, payment };
        let mut may_be_sent = false;
        let (mut payment, claimed) = loop {
            let submitted = self.claims().submit(item).await;
            match submitted.map_err(|error| unknown_if(may_be_sent, error))? {
                Grouped::Written(written, None) if may_be_sent => {
                    let claimed = self.claimed_after_all(&written).await?;
                    break (written.payment, claimed);
                }
                Grouped::Written(written, claimed) => break (written.payment, claimed),
                Grouped::Failed(failed, error) if may_have_committed(&error) => {
                    if let Some(claimed) = self.claimed_after_all(&failed).await? {
                        break (failed.payment, Some(claimed));
                    }
                    if may_be_sent {
                        return Err(unknown_if(true, IdempotencyError::Shared(error)));
                    }
                    may_be_sent = true;
                    item = failed;
                }
                Grouped::Failed(_, error) | Grouped::NotSent(_, error) => {
                    return Err(unknown_if(may_be_sent, IdempotencyError::Shared(error)));
                }
            }
        };
        if let Some(Claimed::New(claimed)) = &claimed {
            payment.created_at = claimed.created_at;
            payment.updated_at = claimed.created_at;
        }
        Ok((payment, claimed))
    }

    async fn claimed_after_all(
        &self,
        item: &ClaimItem,
    ) -> Result<Option<Claimed>, IdempotencyError> {
        let claimed = self
            .engine()
            .claimed_after_all(&item.key, &item.payment.id)
            .await?;
        Ok(claimed.map(Claimed::New))
    }
}

/// An error of a claim of which an earlier try may still be carried out.
fn unknown_if(may_be_sent: bool, error: IdempotencyError) -> IdempotencyError {
    match (may_be_sent, error) {
        (true, error @ IdempotencyError::OutcomeUnknown(_)) | (false, error) => error,
        (true, error) => IdempotencyError::OutcomeUnknown(Box::new(error)),
    }
}

/// The settle of a payment: key and payment in one statement.
struct CreateSettle<'a> {
    payments: &'a Payments,
    payment: Arc<Payment>,
    outcome: Arc<Outcome>,
    claimed: &'a Payment,
    result: Result<Charged, Decline>,
    at: DateTime<Utc>,
}

impl<'a> CreateSettle<'a> {
    fn new(payments: &'a Payments, claimed: &'a Payment, result: Result<Charged, Decline>) -> Self {
        let at = now();
        let mut payment = claimed.clone();
        let outcome = settlement::charged(&mut payment, result.clone(), at);
        Self {
            payments,
            payment: Arc::new(payment),
            outcome: Arc::new(outcome),
            claimed,
            result,
            at,
        }
    }

    /// The same without the gateway's text.
    fn bare(&self, claim: &Claim) -> SettleItem {
        let mut payment = self.claimed.clone();
        let outcome = settlement::charged(&mut payment, self.result.clone().bare(), self.at);
        SettleItem {
            attempt: claim.attempt,
            payment: Arc::new(payment),
            outcome: Arc::new(outcome),
        }
    }

    async fn write(
        &self,
        claim: &Claim,
        item: SettleItem,
    ) -> Result<Option<Answer>, IdempotencyError> {
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
        match self.write(claim, item).await {
            Err(error) if refused_settle::is_refused(&error) => {
                refused_settle::tell(&self.payment.id, &error);
                self.write(claim, self.bare(claim)).await
            }
            settled => settled,
        }
    }
}

fn count_payment(state: PaymentState) {
    metrics::counter!("payonce_payments_total", "state" => state.as_str()).increment(1);
}
