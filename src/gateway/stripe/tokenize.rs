//! Turning a card into a token.

use std::future::ready;

use serde::Deserialize;
use uuid::Uuid;

use super::StripeGateway;
use super::api::Call;
use super::budget::Budget;
use super::persist::Told;
use super::text;
use crate::cards::Card;
use crate::gateway::{GatewayError, GatewayToken};

/// See <https://docs.stripe.com/api/payment_methods/object>.
#[derive(Deserialize)]
struct PaymentMethod {
    id: String,
}

impl StripeGateway {
    /// This charges nothing. A call without an answer counts as "nothing happened", and if a key is mute, the next one makes a
    /// second token, which is harmless.
    pub(super) async fn tokenize_within(
        &self,
        budget: Budget,
        card: &Card,
        account: Option<&str>,
    ) -> Result<GatewayToken, GatewayError> {
        // A new key, because nothing that has an id is stored yet.
        let key = Uuid::new_v4().to_string();
        let (month, year) = (card.expiry_month.to_string(), card.expiry_year.to_string());
        let mut params = vec![
            ("type", "card"),
            ("card[number]", card.number.expose()),
            ("card[exp_month]", month.as_str()),
            ("card[exp_year]", year.as_str()),
            ("card[cvc]", card.cvv.expose()),
        ];
        let name = card.holder_name.as_deref().filter(|name| !name.is_empty());
        params.extend(name.map(|name| ("billing_details[name]", name)));
        let call = Call::post(&["payment_methods"], &key, &params).on(account);
        let nothing_is_charged = |_| ready(Ok(None::<GatewayToken>));
        match self.make(budget, &call, &key, nothing_is_charged).await {
            Ok(Told::Answered(PaymentMethod { id })) if text::is_id(&id, "pm_") => {
                Ok(GatewayToken::new(id))
            }
            Ok(Told::Answered(_)) => Err(GatewayError::NothingHappened {
                reason: "Stripe's token is not valid".to_owned(),
            }),
            Ok(Told::Found(token)) => Ok(token),
            Ok(Told::Declined(declined)) => Err(GatewayError::Declined(declined.decline)),
            Ok(Told::Refused(refusal)) => Err(GatewayError::Refused(refusal)),
            Err(GatewayError::Unknown { reason }) => Err(GatewayError::NothingHappened { reason }),
            Err(error) => Err(error),
        }
    }
}
