//! A payment intent as Stripe shows it: as much of it as is read here.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::decline::{StripeError, authentication_required, of_code};
use crate::cards::CardSummary;
use crate::gateway::{Charged, Decline};

/// See <https://docs.stripe.com/api/payment_intents/object>.
#[derive(Debug, Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) status: Status,
    pub(super) amount_received: Option<i64>,
    last_payment_error: Option<StripeError>,
    latest_charge: Option<IgnoredAny>,
    payment_method: Option<PaymentMethod>,
}

/// See <https://docs.stripe.com/payments/paymentintents/lifecycle>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Succeeded,
    Canceled,
    #[serde(other)]
    Other,
}

/// Whatever it is, it must not make the intent unreadable.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PaymentMethod {
    Expanded {
        card: Card,
        #[serde(default)]
        billing_details: BillingDetails,
    },
    Other(IgnoredAny),
}

#[derive(Debug, Deserialize)]
struct Card {
    brand: String,
    last4: String,
    exp_month: u8,
    exp_year: u16,
}

#[derive(Debug, Default, Deserialize)]
struct BillingDetails {
    name: Option<String>,
}

impl Intent {
    /// True where there is money behind it: taken, or held.
    pub(super) fn is_charged(&self) -> bool {
        matches!(self.status, Status::Succeeded | Status::RequiresCapture)
    }

    pub(super) fn charged(self) -> Charged {
        Charged {
            transaction_id: self.id,
            card: self.payment_method.and_then(PaymentMethod::summary),
        }
    }

    /// Why there is no money behind it.
    pub(super) fn decline(&self) -> Decline {
        match &self.last_payment_error {
            Some(error) => error.card_decline(),
            None if self.status != Status::Canceled => of_code("generic_decline"),
            // Canceled before its card was ever charged: it had asked for authentication, and this adapter gave it up.
            None if self.latest_charge.is_none() => authentication_required(),
            None => of_code("canceled"),
        }
    }
}

impl PaymentMethod {
    fn summary(self) -> Option<CardSummary> {
        let Self::Expanded {
            card,
            billing_details,
        } = self
        else {
            return None;
        };
        let shows_no_more =
            card.last4.len() == 4 && card.last4.bytes().all(|byte| byte.is_ascii_digit());
        shows_no_more.then_some(CardSummary {
            brand: card.brand,
            last4: card.last4,
            expiry_month: card.exp_month,
            expiry_year: card.exp_year,
            holder_name: billing_details.name,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn intent(status: &str, more: Value) -> Intent {
        let mut object = json!({"id": "pi_1", "status": status});
        let fields = object.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        serde_json::from_value(object).expect("an intent")
    }

    #[test]
    fn a_decline_says_why() {
        let error = json!({"code": "card_declined", "decline_code": "lost_card"});
        let rows = [
            (
                "requires_payment_method",
                json!({"last_payment_error": error}),
                "lost_card",
            ),
            ("requires_payment_method", json!({}), "generic_decline"),
            (
                "canceled",
                json!({"last_payment_error": error, "latest_charge": "ch_1"}),
                "lost_card",
            ),
            (
                "canceled",
                json!({"latest_charge": null}),
                "authentication_required",
            ),
            ("canceled", json!({"latest_charge": "ch_1"}), "canceled"),
        ];
        for (status, more, code) in rows {
            assert_eq!(intent(status, more).decline().code, code, "{status}");
        }
    }

    #[test]
    fn only_held_and_taken_money_is_charged() {
        for status in ["succeeded", "requires_capture"] {
            assert!(intent(status, json!({})).is_charged(), "{status}");
        }
        for status in ["requires_action", "processing", "canceled", "unheard_of"] {
            assert!(!intent(status, json!({})).is_charged(), "{status}");
        }
    }

    #[test]
    fn the_card_is_read_where_it_is_one() {
        let card = json!({"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2031});
        let summary = |payment_method| {
            let intent = intent("succeeded", json!({"payment_method": payment_method}));
            intent
                .charged()
                .card
                .map(|card| (card.brand, card.last4, card.holder_name))
        };
        assert_eq!(
            summary(json!({"id": "pm_1", "card": card, "billing_details": {"name": "T"}})),
            Some(("visa".to_owned(), "4242".to_owned(), Some("T".to_owned())))
        );
        assert_eq!(
            summary(json!({"card": card})),
            Some(("visa".to_owned(), "4242".to_owned(), None))
        );
        let odd = json!({"brand": "visa", "last4": "4242424242424242", "exp_month": 12, "exp_year": 2031});
        for none in [
            json!("pm_1"),
            json!(null),
            json!({"link": {}}),
            json!({"card": odd}),
        ] {
            assert_eq!(summary(none.clone()), None, "{none}");
        }
    }
}
