//! A payment intent of Stripe, with the fields that are read here.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::decline::{StripeError, authentication_required, of_code};
use super::text;
use crate::cards::CardSummary;
use crate::gateway::{Charged, Decline, GatewayError};

/// See <https://docs.stripe.com/api/payment_intents/object>.
#[derive(Debug, Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) status: Status,
    amount: i64,
    /// Stripe always sends it. Stand-ins for Stripe may not.
    pub(super) amount_received: Option<i64>,
    amount_capturable: Option<i64>,
    currency: String,
    livemode: Option<bool>,
    cancellation_reason: Option<String>,
    last_payment_error: Option<StripeError>,
    latest_charge: Option<LatestCharge>,
    payment_method: Option<PaymentMethod>,
}

/// An intent in a list, with the fields that tell whose it is.
#[derive(Debug, Deserialize)]
pub(super) struct ListedIntent {
    pub(super) id: String,
    metadata: Option<HashMap<String, String>>,
}

impl ListedIntent {
    pub(super) fn is_of(&self, payment_id: &str) -> bool {
        let id = self.metadata.as_ref().and_then(|m| m.get("payment_id"));
        id.is_some_and(|id| id == payment_id)
    }
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

/// The latest attempt on the card. See <https://docs.stripe.com/api/charges/object>.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum LatestCharge {
    Expanded {
        failure_code: Option<String>,
        #[serde(default)]
        outcome: Option<ChargeOutcome>,
    },
    Other(IgnoredAny),
}

#[derive(Debug, Default, Deserialize)]
struct ChargeOutcome {
    reason: Option<String>,
    advice_code: Option<String>,
    network_advice_code: Option<String>,
    network_decline_code: Option<String>,
}

/// Reads any value, so that an unexpected one does not make the intent unreadable.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PaymentMethod {
    Expanded {
        card: Card,
        #[serde(default)]
        billing_details: Option<BillingDetails>,
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

#[derive(Debug, Deserialize)]
struct BillingDetails {
    name: Option<String>,
}

/// The request for the intent, with Stripe's names.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) amount: i64,
    pub(super) currency: String,
    /// Whether the API key is a live one. `None` if that is not clear from its form.
    pub(super) livemode: Option<bool>,
}

impl Intent {
    /// Why it was canceled, if Stripe says so.
    pub(super) fn cancellation_reason(&self) -> Option<String> {
        text::code(self.cancellation_reason.as_deref())
    }

    /// Whether it took or holds money.
    pub(super) fn is_charged(&self) -> bool {
        matches!(self.status, Status::Succeeded | Status::RequiresCapture)
    }

    /// Its charge, if it matches the request.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Unknown`] if Stripe shows another amount, currency or mode, or an id that is not an intent's.
    pub(super) fn charged(self, asked: &Asked) -> Result<Charged, GatewayError> {
        let moved = match self.status {
            Status::Succeeded => self.amount_received,
            _ => self.amount_capturable,
        };
        self.is_as_asked(asked, moved)?;
        Ok(Charged {
            transaction_id: self.id,
            card: self.payment_method.and_then(PaymentMethod::summary),
        })
    }

    fn is_as_asked(&self, asked: &Asked, moved: Option<i64>) -> Result<(), GatewayError> {
        let shown = [Some(self.amount), moved];
        let differs = if !text::is_id(&self.id, "pi_") {
            "id"
        } else if shown
            .into_iter()
            .flatten()
            .any(|shown| shown != asked.amount)
        {
            "amount"
        } else if self.currency != asked.currency {
            "currency"
        } else {
            return self.is_in_mode(asked.livemode);
        };
        tracing::error!(
            ?asked,
            amount = self.amount,
            ?moved,
            currency = ?self.currency,
            "Stripe answered with another {differs} than requested"
        );
        Err(differing(differs))
    }

    /// Whether its mode, live or test, is that of the API key.
    pub(super) fn is_in_mode(&self, livemode: Option<bool>) -> Result<(), GatewayError> {
        match (livemode, self.livemode) {
            (Some(asked), Some(shown)) if asked != shown => {
                tracing::error!(
                    asked,
                    shown,
                    "Stripe answered in another mode than its key's"
                );
                Err(differing("livemode"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it is in the currency.
    pub(super) fn is_in_currency(&self, currency: &str) -> bool {
        self.currency == currency
    }

    /// Why it took or holds no money.
    pub(super) fn decline(&self) -> Decline {
        if let Some(error) = &self.last_payment_error {
            return error.card_decline();
        }
        // Any later change of the intent, also a cancel, clears the error: the charge still has it.
        match &self.latest_charge {
            Some(LatestCharge::Expanded {
                failure_code: Some(code),
                outcome,
            }) => failed_charge(code, outcome.as_ref()),
            _ if self.status != Status::Canceled => of_code("generic_decline"),
            // Canceled before its card was ever charged: it had asked for authentication, and this adapter gave it up.
            None => authentication_required(),
            Some(_) => of_code("canceled"),
        }
    }
}

/// The decline of a failed charge.
fn failed_charge(code: &str, outcome: Option<&ChargeOutcome>) -> Decline {
    let reason = outcome.and_then(|outcome| outcome.reason.clone());
    let error = StripeError {
        code: Some(code.to_owned()),
        // `card_declined` is the less specific code.
        decline_code: reason.filter(|_| code == "card_declined"),
        advice_code: outcome.and_then(|outcome| outcome.advice_code.clone()),
        network_advice_code: outcome.and_then(|outcome| outcome.network_advice_code.clone()),
        network_decline_code: outcome.and_then(|outcome| outcome.network_decline_code.clone()),
        ..StripeError::default()
    };
    error.card_decline()
}

/// The error for an intent that does not match the request: neither a success nor a failure.
pub(super) fn differing(what: &str) -> GatewayError {
    GatewayError::Unknown {
        reason: format!("Stripe answered with another {what} than requested"),
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
        let has_month = (1..=12).contains(&card.exp_month);
        let name = billing_details.and_then(|details| details.name);
        (shows_no_more && has_month).then_some(CardSummary {
            brand: text::code(Some(&card.brand)).unwrap_or_else(|| "unknown".to_owned()),
            last4: card.last4,
            expiry_month: card.exp_month,
            expiry_year: card.exp_year,
            holder_name: name.as_deref().and_then(text::message),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn intent(status: &str, more: Value) -> Intent {
        let mut object = json!({"id": "pi_1", "status": status, "amount": 5000, "currency": "usd"});
        let fields = object.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        serde_json::from_value(object).expect("an intent")
    }

    fn asked() -> Asked {
        Asked {
            amount: 5_000,
            currency: "usd".to_owned(),
            livemode: Some(false),
        }
    }

    #[test]
    fn a_decline_says_why() {
        let error = json!({"code": "card_declined", "decline_code": "lost_card"});
        let failed = json!({
            "id": "ch_1", "object": "charge", "failure_code": "card_declined", "outcome": {"reason": "lost_card"},
        });
        let expired = json!({"id": "ch_1", "object": "charge", "failure_code": "expired_card", "outcome": {"reason": "x"}});
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
            // A cancel cleared it, but the charge still has it.
            (
                "canceled",
                json!({"last_payment_error": null, "latest_charge": failed}),
                "lost_card",
            ),
            (
                "canceled",
                json!({"latest_charge": expired}),
                "expired_card",
            ),
            (
                "canceled",
                json!({"latest_charge": null}),
                "authentication_required",
            ),
            ("canceled", json!({"latest_charge": "ch_1"}), "canceled"),
            (
                "canceled",
                json!({"latest_charge": {"id": "ch_1", "failure_code": null}}),
                "canceled",
            ),
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
    fn what_differs_from_what_was_asked_for_is_no_success() {
        let rows = [
            (
                "succeeded",
                json!({"amount_received": 5000, "livemode": false}),
                None,
            ),
            (
                "requires_capture",
                json!({"amount_received": 0, "amount_capturable": 5000}),
                None,
            ),
            ("succeeded", json!({}), None),
            ("succeeded", json!({"amount": 4999}), Some("amount")),
            (
                "succeeded",
                json!({"amount_received": 4999}),
                Some("amount"),
            ),
            (
                "requires_capture",
                json!({"amount_capturable": 1}),
                Some("amount"),
            ),
            ("succeeded", json!({"currency": "eur"}), Some("currency")),
            ("succeeded", json!({"livemode": true}), Some("livemode")),
            ("succeeded", json!({"id": "pi_\0"}), Some("id")),
            ("succeeded", json!({"id": "ch_1"}), Some("id")),
        ];
        for (status, more, differs) in rows {
            let result = intent(status, more.clone()).charged(&asked());
            match (result, differs) {
                (Ok(_), None) => {}
                (Err(GatewayError::Unknown { reason }), Some(what)) => {
                    assert!(reason.contains(what), "{reason}");
                }
                (other, _) => panic!("{more}: {other:?}"),
            }
        }
        let unsaid = Asked {
            livemode: None,
            ..asked()
        };
        let live = intent("succeeded", json!({"livemode": true}));
        assert!(live.charged(&unsaid).is_ok());
    }

    #[test]
    fn the_card_is_read_where_it_is_one() {
        let card = json!({"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2031});
        let summary = |payment_method| {
            let intent = intent("succeeded", json!({"payment_method": payment_method}));
            let charged = intent.charged(&asked()).expect("a charge");
            charged
                .card
                .map(|card| (card.brand, card.last4, card.holder_name))
        };
        let of = |brand: &str, name: Option<&str>| {
            Some((brand.to_owned(), "4242".to_owned(), name.map(str::to_owned)))
        };
        assert_eq!(
            summary(json!({"id": "pm_1", "card": card, "billing_details": {"name": "T\0"}})),
            of("visa", Some("T"))
        );
        assert_eq!(summary(json!({"card": card})), of("visa", None));
        let odd_brand = json!({"brand": "v\0", "last4": "4242", "exp_month": 12, "exp_year": 2031});
        assert_eq!(
            summary(json!({"card": odd_brand, "billing_details": null})),
            of("unknown", None)
        );
        let odd = json!({"brand": "visa", "last4": "4242424242424242", "exp_month": 12, "exp_year": 2031});
        let monthless = json!({"brand": "visa", "last4": "4242", "exp_month": 0, "exp_year": 2031});
        for none in [
            json!({"card": monthless}),
            json!("pm_1"),
            json!(null),
            json!({"link": {}}),
            json!({"card": odd}),
        ] {
            assert_eq!(summary(none.clone()), None, "{none}");
        }
    }
}
