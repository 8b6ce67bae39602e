//! The claim of a create: the key, and the payment that it makes.

use chrono::DateTime;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::CreateWork;
use crate::cards::Card;
use crate::database::{self, Bounded};
use crate::gateway::{Decline, GatewayError, GatewayToken};
use crate::idempotency::grouped::{Attempt, Claimant, Grouped, NewKey, Remembered};
use crate::idempotency::{IdempotencyError, ScopedKey, may_have_committed};
use crate::money::Amount;
use crate::payments::gateway_call::count_call;
use crate::payments::group_commit::ClaimItem;
use crate::payments::store::{Claimed, NewClaim};
use crate::payments::{
    Instrument, NewPayment, Payment, PaymentError, PaymentState, Payments, sanitize, store,
};

/// Claims the key of a payment and inserts the payment, in one statement.
pub(super) struct CreateClaim<'a> {
    pub(super) payments: &'a Payments,
    pub(super) request: &'a NewPayment,
    /// Prepared once, even if the claim takes several tries, so that its card is turned into a token only once.
    pub(super) payment: Option<Box<Payment>>,
}

impl Claimant<CreateWork> for CreateClaim<'_> {
    async fn try_claim(&mut self, key: NewKey) -> Result<Attempt<CreateWork>, IdempotencyError> {
        let payment = match self.payment.take() {
            Some(payment) => payment,
            None if self.tokenizes_remotely()
                && Box::pin(self.remembered(key.columns().scope))
                    .await?
                    .is_some() =>
            {
                return Ok(Attempt::InUse);
            }
            None => {
                let prepared = self.prepare(&key).await;
                Box::new(prepared.map_err(|e| IdempotencyError::Work(e.into()))?)
            }
        };
        let (payment, claimed) = self.payments.claim_payment(key, payment).await?;
        match claimed {
            Some(Claimed::Found(found)) => Ok(Attempt::Found(found)),
            Some(Claimed::New(claim)) => Ok(Attempt::Claimed {
                inserted: claim.inserted,
                resource_id: payment.id.clone(),
                work: CreateWork {
                    payment,
                    locations: claim.locations,
                },
            }),
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
        self.payments.may_take_over(scope, resource_id).await
    }
}

impl CreateClaim<'_> {
    /// Whether a token needs a call of the gateway. If so, the database is asked first whether the key is new.
    fn tokenizes_remotely(&self) -> bool {
        self.payments.default_gateway().tokenizes_remotely()
            && matches!(self.request.instrument, Instrument::Card(_))
    }

    /// The payment to insert. A card is turned into a token here, before anything is stored.
    async fn prepare(&self, key: &NewKey) -> Result<Payment, PaymentError> {
        let gateway = self.payments.default_gateway();
        let scope = key.columns().scope;
        let account = match gateway.has_accounts() {
            true => Box::pin(self.payments.stripe_account(&scope.merchant_id)).await?,
            false => None,
        };
        let (token, card, failure) = match &self.request.instrument {
            Instrument::Token(token) => {
                let card = gateway.describe_token(token).and_then(sanitize::card);
                (Some(token.clone()), card, None)
            }
            Instrument::Card(card) => {
                let (token, failure) = self.tokenize(card, account.as_deref()).await?;
                (token, Some(card.summary()), failure)
            }
        };
        let request = self.request;
        let nothing = Amount::zero(request.amount.currency());
        Ok(Payment {
            merchant_id: scope.merchant_id.clone(),
            id: format!("pay_{}", Uuid::now_v7()),
            idempotency_key: scope.key.to_string(),
            state: PaymentState::Processing,
            amount: request.amount,
            captured: nothing,
            refunded: nothing,
            refunding: nothing,
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
        match sanitize::answer(answer) {
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
            // A token charges nothing, so a call without an answer did nothing.
            Err(error) => {
                tracing::warn!(%error, "the card could not be turned into a token");
                Err(PaymentError::GatewayUnavailable)
            }
        }
    }
}

impl Payments {
    /// Claims a payment's key together with the payment. Returns no claim if the key is in use and no answer was found.
    ///
    /// A claim whose result is lost may still be committed at any time later. It is then found, or sent a second time, or reported
    /// as unknown. It is never reported as not made.
    async fn claim_payment(
        &self,
        key: NewKey,
        payment: Box<Payment>,
    ) -> Result<(Box<Payment>, Option<Claimed>), IdempotencyError> {
        let mut item = ClaimItem { key, payment };
        let mut may_commit = false;
        let (mut payment, claimed) = loop {
            let submitted = self.claims().submit(item).await;
            match submitted.map_err(|error| unknown_if(may_commit, error))? {
                Grouped::Written(written, None) if may_commit => {
                    let claimed = Box::pin(self.claimed_after_all(&written)).await?;
                    break (written.payment, claimed);
                }
                Grouped::Written(written, claimed) => break (written.payment, claimed),
                Grouped::Failed(failed, error) if may_have_committed(&error) => {
                    if let Some(claimed) = Box::pin(self.claimed_after_all(&failed)).await? {
                        break (failed.payment, Some(claimed));
                    }
                    if may_commit {
                        return Err(unknown_if(true, IdempotencyError::Shared(error)));
                    }
                    may_commit = true;
                    item = failed;
                }
                Grouped::Failed(_, error) | Grouped::NotSent(_, error) => {
                    return Err(unknown_if(may_commit, IdempotencyError::Shared(error)));
                }
            }
        };
        if let Some(Claimed::New(claimed)) = &claimed {
            payment.created_at = claimed.inserted.created_at;
            payment.updated_at = claimed.inserted.created_at;
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
        Ok(claimed.map(|inserted| {
            Claimed::New(NewClaim {
                inserted,
                locations: None,
            })
        }))
    }
}

/// The error of a claim. It leaves the outcome unknown if an earlier try of the claim may still be committed.
fn unknown_if(may_commit: bool, error: IdempotencyError) -> IdempotencyError {
    match (may_commit, error) {
        (true, error @ IdempotencyError::OutcomeUnknown(_)) | (false, error) => error,
        (true, error) => IdempotencyError::OutcomeUnknown(Box::new(error)),
    }
}
