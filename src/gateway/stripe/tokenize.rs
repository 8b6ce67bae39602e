//! Turning a card into a token.

use std::future::ready;

use serde::Deserialize;
use uuid::Uuid;

use super::StripeGateway;
use super::api::Call;
use super::budget::Budget;
use super::persist::Told;
use crate::cards::Card;
use crate::gateway::{GatewayError, GatewayToken};

/// See <https://docs.stripe.com/api/payment_methods/object>.
#[derive(Deserialize)]
struct PaymentMethod {
    id: String,
}

impl StripeGateway {
    /// Nothing is charged by it: where no answer comes, nothing happened, and where the first key is found mute, a second
    /// one makes a second token that does no harm.
    pub(super) async fn tokenize_within(
        &self,
        budget: Budget,
        card: &Card,
    ) -> Result<GatewayToken, GatewayError> {
        let told = match self.tokenize_once(budget, card, Some(())).await {
            Ok(Told::Found(())) => self.tokenize_once(budget, card, None).await,
            told => told,
        };
        match told {
            Ok(Told::Answered(PaymentMethod { id })) => Ok(GatewayToken::new(id)),
            Ok(Told::Refused(decline)) => Err(GatewayError::Declined(decline)),
            Ok(Told::Found(())) => Err(GatewayError::NothingHappened {
                reason: "Stripe stays without an answer".to_owned(),
            }),
            Err(GatewayError::NothingHappened { reason } | GatewayError::Unknown { reason }) => {
                Err(GatewayError::NothingHappened { reason })
            }
            Err(declined) => Err(declined),
        }
    }

    /// Asks under a key of its own, since nothing is stored yet that has an id. `when_mute` ends it early.
    async fn tokenize_once(
        &self,
        budget: Budget,
        card: &Card,
        when_mute: Option<()>,
    ) -> Result<Told<PaymentMethod, ()>, GatewayError> {
        let key = Uuid::new_v4().to_string();
        let (month, year) = (card.expiry_month.to_string(), card.expiry_year.to_string());
        let params = [
            ("type", "card"),
            ("card[number]", card.number.expose()),
            ("card[exp_month]", month.as_str()),
            ("card[exp_year]", year.as_str()),
            ("card[cvc]", card.cvv.expose()),
        ];
        let call = Call::post(&["payment_methods"], &key, &params);
        self.make(budget, &call, || ready(Ok(when_mute))).await
    }
}
