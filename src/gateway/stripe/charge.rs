//! Charging, and asking for the result of a charge.

use std::time::Duration;

use chrono::{TimeDelta, Utc};

use super::StripeGateway;
use super::amount::{wire_amount, wire_currency};
use super::api::Call;
use super::budget::{Budget, pauses};
use super::decline::{Declined, authentication_required};
use super::intent::{Asked, Intent, Status};
use super::persist::{Told, unknown};
use super::search::Question;
use crate::gateway::{Cancel, CaptureMethod, Charge, Charged, Decline, GatewayError};

/// Once a claim is older than this, no call for its charge can be under way: past 20 hours callers ask instead of calling, and an
/// hour is far longer than a call can take here and at Stripe together, even with clocks that differ. Before this age, the absence
/// of a charge proves nothing.
const NO_CALL_IS_OLDER: TimeDelta = TimeDelta::hours(21);

/// The longest that an intent without money may take to be canceled after a decline that is known already.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// The reason that Stripe is given for a canceled intent.
const ABANDONED: &str = "abandoned";

impl StripeGateway {
    pub(super) async fn charge_within(
        &self,
        budget: Budget,
        charge: &Charge,
    ) -> Result<Charged, GatewayError> {
        let asked = self.asked(charge)?;
        let amount = asked.amount.to_string();
        let params = params_of(charge, &amount, &asked.currency);
        let call = Call::post(&["payment_intents"], &charge.payment_id, &params)
            .on(charge.account.as_deref());
        let ask = |question| self.look_for(budget, charge, question);
        match self.make(budget, &call, &charge.payment_id, ask).await? {
            Told::Answered(intent) => self.decide(budget, charge, intent).await,
            Told::Found(charged) => Ok(charged),
            Told::Declined(declined) => self.declined(budget, charge, declined).await,
            Told::Refused(refusal) => Err(GatewayError::Refused(refusal)),
        }
    }

    /// Returns `Ok(None)` only if no call for the charge can be under way any more.
    pub(super) async fn find_charge_within(
        &self,
        budget: Budget,
        charge: &Charge,
    ) -> Result<Option<Charged>, GatewayError> {
        // Determined before the search, so that the search sees every intent that will ever exist.
        let question = match Utc::now() < charge.claimed_at + NO_CALL_IS_OLDER {
            true => Question::Claim,
            false => Question::OldClaim,
        };
        let is_final = question.is_final();
        let found = self.look_for(budget, charge, question).await?;
        if found.is_none() && !is_final {
            return Err(GatewayError::Unknown {
                reason: "there is no charge yet, and a call for it may still be under way"
                    .to_owned(),
            });
        }
        Ok(found)
    }

    /// Reads the outcome of the payment's intents so far. Returns `Ok(None)` if Stripe has none.
    async fn look_for(
        &self,
        budget: Budget,
        charge: &Charge,
        question: Question,
    ) -> Result<Option<Charged>, GatewayError> {
        let mut intents = self.intents_of(budget, charge, question).await?;
        if intents.len() > 1 {
            let (payment, intents) = (&charge.payment_id, intents.len());
            tracing::error!(
                payment,
                intents,
                "Stripe has more than one intent of a payment"
            );
        }
        // The intent with money counts. Without one, the intent that may still get money.
        intents.sort_by_key(|intent| match intent.status {
            Status::Succeeded | Status::RequiresCapture => 0,
            Status::Processing | Status::Other => 1,
            Status::RequiresAction | Status::RequiresConfirmation => 2,
            Status::RequiresPaymentMethod => 3,
            Status::Canceled => 4,
        });
        let mut intents = intents.into_iter();
        let Some(intent) = intents.next() else {
            return Ok(None);
        };
        for other in intents.filter(|other| is_open(other.status)) {
            self.close_after_decline(budget, charge, &other.id).await?;
        }
        self.decide(budget, charge, intent).await.map(Some)
    }

    /// The intent as it is now.
    pub(super) async fn retrieve(
        &self,
        budget: Budget,
        account: Option<&str>,
        id: &str,
    ) -> Result<Intent, GatewayError> {
        let params = [
            ("expand[]", "payment_method"),
            ("expand[]", "latest_charge"),
        ];
        let path = ["payment_intents", id];
        self.read(budget, &Call::get(&path, &params).on(account))
            .await
    }

    fn asked(&self, charge: &Charge) -> Result<Asked, GatewayError> {
        Ok(Asked {
            amount: wire_amount(charge.amount)?,
            currency: wire_currency(charge.amount),
            livemode: self.livemode,
        })
    }

    /// What an intent means for its payment. An answer stored under a key shows the intent's earlier state, so an undecided intent
    /// is read again.
    async fn decide(
        &self,
        budget: Budget,
        charge: &Charge,
        mut intent: Intent,
    ) -> Result<Charged, GatewayError> {
        let account = charge.account.as_deref();
        for pause in pauses() {
            match intent.status {
                Status::Succeeded | Status::RequiresCapture => {
                    return intent.charged(&self.asked(charge)?);
                }
                Status::Canceled => return Err(GatewayError::Declined(intent.decline())),
                Status::RequiresPaymentMethod => {
                    let declined = Declined {
                        decline: intent.decline(),
                        intent_id: Some(intent.id),
                    };
                    return self.declined(budget, charge, declined).await;
                }
                Status::RequiresAction | Status::RequiresConfirmation => {
                    return Err(self.give_up(budget, charge, &intent.id).await);
                }
                Status::Processing | Status::Other => {}
            }
            if !budget.allows(pause, Duration::ZERO) {
                break;
            }
            tokio::time::sleep(pause).await;
            intent = self.retrieve(budget, account, &intent.id).await?;
        }
        Err(GatewayError::Unknown {
            reason: format!("the intent stays in {:?}", intent.status),
        })
    }

    /// Cancels the intent that a decline leaves behind, which could be confirmed with another card.
    async fn declined(
        &self,
        budget: Budget,
        charge: &Charge,
        declined: Declined,
    ) -> Result<Charged, GatewayError> {
        let no = GatewayError::Declined(declined.decline);
        let Some(id) = declined.intent_id else {
            return Err(no);
        };
        if self.close_after_decline(budget, charge, &id).await? {
            return Err(no);
        }
        // It was paid in the meantime, or is about to be.
        let intent = self
            .retrieve(budget, charge.account.as_deref(), &id)
            .await?;
        match intent.status {
            Status::Succeeded | Status::RequiresCapture => intent.charged(&self.asked(charge)?),
            Status::RequiresPaymentMethod | Status::Canceled => Err(no),
            status => Err(GatewayError::Unknown {
                reason: format!("a declined intent is in {status:?}"),
            }),
        }
    }

    /// Cancels an intent without money. Returns false if Stripe says that it can no longer be canceled. If Stripe does not answer, the
    /// decline stands: only this service's own key can confirm the intent.
    async fn close_after_decline(
        &self,
        budget: Budget,
        charge: &Charge,
        id: &str,
    ) -> Result<bool, GatewayError> {
        match self.close(budget.at_most(CLOSING_TIME), charge, id).await {
            Ok(()) => Ok(true),
            Err(GatewayError::Declined(_)) => Ok(false),
            Err(error) => {
                tracing::warn!(intent = id, payment = charge.payment_id, %error, "a declined intent stays open at Stripe");
                Ok(true)
            }
        }
    }

    /// Cancels an intent that waits for its card's owner, which makes it a decline. Until it is known to be canceled, it could
    /// still be paid.
    async fn give_up(&self, budget: Budget, charge: &Charge, id: &str) -> GatewayError {
        match self.close(budget, charge, id).await {
            Ok(()) => GatewayError::Declined(authentication_required()),
            Err(GatewayError::Declined(Decline { code, .. })) => GatewayError::Unknown {
                reason: format!("an intent that waits for authentication is not canceled: {code}"),
            },
            Err(error) => unknown(error),
        }
    }

    async fn close(&self, budget: Budget, charge: &Charge, id: &str) -> Result<(), GatewayError> {
        let cancel = Cancel {
            key: format!("{id}:close"),
            payment_id: charge.payment_id.clone(),
            account: charge.account.clone(),
            transaction_id: id.to_owned(),
        };
        self.cancel_for(budget, &cancel, Some(ABANDONED)).await
    }
}

/// Whether an intent could still be paid.
fn is_open(status: Status) -> bool {
    matches!(
        status,
        Status::RequiresPaymentMethod | Status::RequiresAction | Status::RequiresConfirmation
    )
}

fn params_of<'a>(
    charge: &'a Charge,
    amount: &'a str,
    currency: &'a str,
) -> Vec<(&'a str, &'a str)> {
    let capture_method = match charge.capture_method {
        // Stripe's default, `automatic_async`, may leave the intent in `processing`.
        CaptureMethod::Automatic => "automatic",
        CaptureMethod::Manual => "manual",
    };
    let mut params = vec![
        ("amount", amount),
        ("currency", currency),
        ("confirm", "true"),
        ("capture_method", capture_method),
        ("payment_method", charge.token.as_str()),
        // Otherwise the account's settings may allow methods that send the payer elsewhere and ask for a URL to come back to.
        ("automatic_payment_methods[enabled]", "true"),
        ("automatic_payment_methods[allow_redirects]", "never"),
        ("metadata[payment_id]", charge.payment_id.as_str()),
        ("metadata[merchant_id]", charge.merchant_id.as_str()),
        ("expand[]", "payment_method"),
    ];
    let customer = charge.gateway_customer_id.as_deref();
    params.extend(customer.map(|customer| ("customer", customer)));
    let description = charge
        .description
        .as_deref()
        .filter(|text| !text.is_empty());
    params.extend(description.map(|description| ("description", description)));
    // The payer is not present to do what Stripe would ask for, so this is a decline.
    params.push(match charge.off_session {
        true => ("off_session", "true"),
        false => ("error_on_requires_action", "true"),
    });
    params
}
