//! Cards and the outcome of a charge: the table of payonce's simulated gateway, in Stripe's words, and the cards that ask for 3-D
//! Secure.

use chrono::{Datelike, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::contract::published;

/// A tokenized card. Only the last four digits of its number are kept.
#[derive(Clone, Debug)]
pub(super) struct PaymentMethod {
    pub(super) id: String,
    brand: &'static str,
    last4: String,
    exp_month: i64,
    exp_year: i64,
    outcome: Outcome,
    name: Option<String>,
    created: i64,
    /// Refunds to it are pending for a while, and then fail or succeed.
    pub(super) refunds_take_time: bool,
}

/// The outcome of a charge to a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Approved,
    Authentication,
    Declined(Decline),
}

/// The three fields by which Stripe names a decline. Some have only a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decline {
    pub(super) code: &'static str,
    pub(super) decline_code: Option<&'static str>,
    pub(super) message: &'static str,
    /// The advice of Stripe and the card's network.
    pub(super) advice: Option<Advice>,
}

/// `advice_code`, `network_advice_code` and `network_decline_code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advice(
    pub(super) &'static str,
    pub(super) &'static str,
    pub(super) &'static str,
);

const EXPIRED: Decline = Decline {
    code: "expired_card",
    decline_code: None,
    message: "Your card has expired.",
    advice: None,
};

/// The outcome for a card that needs authentication if the caller said that the owner is absent.
pub(super) const AUTHENTICATION_REQUIRED: Decline = Decline {
    code: "authentication_required",
    decline_code: Some("authentication_required"),
    message: "Your card was declined. This transaction requires authentication.",
    advice: None,
};

const fn declined(decline_code: &'static str, message: &'static str) -> Outcome {
    Outcome::Declined(Decline {
        code: "card_declined",
        decline_code: Some(decline_code),
        message,
        advice: None,
    })
}

const fn failed(code: &'static str, message: &'static str) -> Outcome {
    Outcome::Declined(Decline {
        code,
        decline_code: None,
        message,
        advice: None,
    })
}

fn outcome_of(number: &str) -> Outcome {
    match number {
        "4000000000000002" => declined("generic_decline", "Your card was declined."),
        "4000000000009995" => declined("insufficient_funds", "Your card has insufficient funds."),
        "4000000000009987" => declined("lost_card", "Your card was declined."),
        "4000000000009979" => Outcome::Declined(Decline {
            code: "card_declined",
            decline_code: Some("stolen_card"),
            message: "Your card was declined.",
            advice: Some(Advice("do_not_try_again", "01", "43")),
        }),
        "4000000000000069" => Outcome::Declined(EXPIRED),
        "4000000000000127" => failed("incorrect_cvc", "Your card's security code is incorrect."),
        "4000000000000119" => failed(
            "processing_error",
            "An error occurred while processing your card. Try again in a little bit.",
        ),
        "4000002500003155" | "4000002760003184" | "4000000000003220" => Outcome::Authentication,
        _ => Outcome::Approved,
    }
}

/// The card behind each of Stripe's ready-made tokens. See <https://docs.stripe.com/testing>.
fn number_of(test_token: &str) -> Option<&'static str> {
    Some(match test_token {
        "pm_card_visa" | "pm_card_visa_debit" => "4242424242424242",
        "pm_card_mastercard" => "5555555555554444",
        "pm_card_amex" => "378282246310005",
        "pm_card_discover" => "6011111111111117",
        "pm_card_chargeDeclined" | "pm_card_visa_chargeDeclined" => "4000000000000002",
        "pm_card_chargeDeclinedInsufficientFunds"
        | "pm_card_visa_chargeDeclinedInsufficientFunds" => "4000000000009995",
        "pm_card_chargeDeclinedLostCard" | "pm_card_visa_chargeDeclinedLostCard" => {
            "4000000000009987"
        }
        "pm_card_chargeDeclinedStolenCard" | "pm_card_visa_chargeDeclinedStolenCard" => {
            "4000000000009979"
        }
        "pm_card_chargeDeclinedExpiredCard" => "4000000000000069",
        "pm_card_chargeDeclinedIncorrectCvc" => "4000000000000127",
        "pm_card_chargeDeclinedProcessingError" => "4000000000000119",
        "pm_card_authenticationRequired" => "4000002760003184",
        "pm_card_threeDSecure2Required" => "4000000000003220",
        "pm_card_refundFail" => "4000000000005126",
        _ => return None,
    })
}

fn brand_of(number: &str) -> &'static str {
    let prefix = |digits: usize| {
        number
            .get(..digits)
            .and_then(|prefix| prefix.parse::<u32>().ok())
            .unwrap_or(0)
    };
    match (prefix(1), prefix(2), prefix(4)) {
        (4, _, _) => "visa",
        (_, 51..=55, _) | (_, _, 2221..=2720) => "mastercard",
        (_, 34 | 37, _) => "amex",
        (_, 65, _) | (_, _, 6011) => "discover",
        _ => "unknown",
    }
}

impl PaymentMethod {
    pub(super) fn new(number: &str, exp_month: i64, exp_year: i64, name: Option<String>) -> Self {
        Self {
            name,
            ..Self::with_id(
                format!("pm_{}", Uuid::new_v4().simple()),
                number,
                exp_month,
                exp_year,
            )
        }
    }

    /// The card of a ready-made token, valid until the end of next year.
    pub(super) fn test_token(id: &str) -> Option<Self> {
        let number = number_of(id)?;
        Some(Self::with_id(
            id.to_owned(),
            number,
            12,
            i64::from(Utc::now().year()) + 1,
        ))
    }

    fn with_id(id: String, number: &str, exp_month: i64, exp_year: i64) -> Self {
        Self {
            id,
            brand: brand_of(number),
            last4: number
                .get(number.len().saturating_sub(4)..)
                .unwrap_or_default()
                .to_owned(),
            exp_month,
            exp_year,
            outcome: outcome_of(number),
            name: None,
            created: Utc::now().timestamp(),
            refunds_take_time: matches!(number, "4000000000005126" | "4000000000007726"),
        }
    }

    /// The outcome of a charge now. A card is valid until the end of its month.
    pub(super) fn outcome(&self) -> Outcome {
        let today = Utc::now();
        let this_month = (i64::from(today.year()), i64::from(today.month()));
        match (self.exp_year, self.exp_month) < this_month {
            true => Outcome::Declined(EXPIRED),
            false => self.outcome,
        }
    }

    pub(super) fn card(&self) -> Value {
        json!({
            "brand": self.brand,
            "last4": self.last4,
            "exp_month": self.exp_month,
            "exp_year": self.exp_year,
        })
    }

    pub(super) fn json(&self) -> Value {
        published(json!({
            "id": self.id,
            "object": "payment_method",
            "billing_details": {"name": self.name},
            "card": self.card(),
            "created": self.created,
            "livemode": false,
            "type": "card",
        }))
    }
}
