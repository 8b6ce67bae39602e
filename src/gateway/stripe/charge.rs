//! Charging, and asking what became of a charge.

use serde::Deserialize;

use super::StripeGateway;
use super::amount::{wire_amount, wire_currency};
use super::api::Call;
use super::budget::{Budget, pauses};
use super::decline::authentication_required;
use super::intent::{Intent, Status};
use super::persist::{Told, unknown};
use crate::gateway::{Cancel, Charge, Charged, GatewayError};
use crate::payments::CaptureMethod;

/// A page of the search.
#[derive(Deserialize)]
struct SearchResult {
    data: Vec<Intent>,
}

impl StripeGateway {
    pub(super) async fn charge_within(
        &self,
        budget: Budget,
        charge: &Charge,
    ) -> Result<Charged, GatewayError> {
        let amount = wire_amount(charge.amount).map_err(GatewayError::Declined)?;
        let (amount, currency) = (amount.to_string(), wire_currency(charge.amount));
        let capture_method = match charge.capture_method {
            CaptureMethod::Automatic => "automatic",
            CaptureMethod::Manual => "manual",
        };
        let params = [
            ("amount", amount.as_str()),
            ("currency", currency.as_str()),
            ("confirm", "true"),
            ("capture_method", capture_method),
            ("payment_method", charge.token.as_str()),
            // Without it the account's settings decide, and those may ask for a URL to come back to.
            ("payment_method_types[]", "card"),
            ("metadata[payment_id]", charge.payment_id.as_str()),
            ("expand[]", "payment_method"),
        ];
        let call = Call::post(&["payment_intents"], &charge.payment_id, &params);
        let ask = || self.find_charge_within(budget, charge);
        match self.make(budget, &call, ask).await? {
            Told::Answered(intent) => self.decide(budget, charge, intent).await,
            Told::Found(charged) => Ok(charged),
            Told::Refused(decline) => Err(GatewayError::Declined(decline)),
        }
    }

    pub(super) async fn find_charge_within(
        &self,
        budget: Budget,
        charge: &Charge,
    ) -> Result<Option<Charged>, GatewayError> {
        let query = format!("metadata['payment_id']:'{}'", charge.payment_id);
        let params = [("query", query.as_str())];
        let call = Call::get(&["payment_intents", "search"], &params);
        let found: SearchResult = self.read(budget, &call).await?;
        if found.data.len() > 1 {
            let (payment, intents) = (&charge.payment_id, found.data.len());
            tracing::error!(
                payment,
                intents,
                "Stripe has more than one intent of a payment"
            );
        }
        let mut found = found.data.into_iter();
        let Some(mut intent) = found.next() else {
            return Ok(None);
        };
        // The search shows the past: only the intent itself says what it has come to.
        intent = self.retrieve(budget, &intent.id).await?;
        for other in found {
            if intent.is_charged() {
                break;
            }
            intent = self.retrieve(budget, &other.id).await?;
        }
        self.decide(budget, charge, intent).await.map(Some)
    }

    /// The intent as it is now.
    pub(super) async fn retrieve(&self, budget: Budget, id: &str) -> Result<Intent, GatewayError> {
        let params = [("expand[]", "payment_method")];
        self.read(budget, &Call::get(&["payment_intents", id], &params))
            .await
    }

    /// What an intent means for its payment. An answer stored under a key shows the intent as it was then, so one that was
    /// undecided is looked at again.
    async fn decide(
        &self,
        budget: Budget,
        charge: &Charge,
        mut intent: Intent,
    ) -> Result<Charged, GatewayError> {
        for pause in pauses() {
            match intent.status {
                Status::Succeeded | Status::RequiresCapture => return Ok(intent.charged()),
                Status::RequiresPaymentMethod | Status::Canceled => {
                    return Err(GatewayError::Declined(intent.decline()));
                }
                Status::RequiresAction | Status::RequiresConfirmation => {
                    return Err(self.give_up(budget, charge, intent.id).await);
                }
                Status::Processing | Status::Other => {}
            }
            if !budget.allows(pause, std::time::Duration::ZERO) {
                break;
            }
            tokio::time::sleep(pause).await;
            intent = self.retrieve(budget, &intent.id).await?;
        }
        Err(GatewayError::Unknown {
            reason: format!("the intent stays in {:?}", intent.status),
        })
    }

    /// Cancels an intent that waits for its card's owner, and is then a decline. Until it is known to be canceled, it could
    /// still be paid.
    async fn give_up(
        &self,
        budget: Budget,
        charge: &Charge,
        transaction_id: String,
    ) -> GatewayError {
        let cancel = Cancel {
            key: format!("{}:give-up", charge.payment_id),
            payment_id: charge.payment_id.clone(),
            account: charge.account.clone(),
            transaction_id,
        };
        match self.cancel_within(budget, &cancel).await {
            Ok(()) => GatewayError::Declined(authentication_required()),
            Err(GatewayError::Declined(decline)) => GatewayError::Unknown {
                reason: format!(
                    "an intent that waits for authentication is not canceled: {}",
                    decline.code
                ),
            },
            Err(error) => unknown(error),
        }
    }
}
