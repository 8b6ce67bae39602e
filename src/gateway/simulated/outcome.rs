use chrono::NaiveDate;

use crate::cards::Card;
use crate::gateway::{Decline, GatewayError, GatewayToken, Refusal};

/// The prefix of the tokens that this gateway gives out. An [`Outcome`]'s code follows it.
const TOKEN_PREFIX: &str = "pm_simulated_";

/// The outcome of every charge of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// Success. Its refunds are pending for a while and then fail.
    RefundsFail,
    GenericDecline,
    InsufficientFunds,
    LostCard,
    StolenCard,
    ExpiredCard,
    IncorrectCvc,
    ProcessingError,
    NoSuchToken,
}

impl Outcome {
    const OF_TOKENS: [Self; 9] = [
        Self::Success,
        Self::RefundsFail,
        Self::GenericDecline,
        Self::InsufficientFunds,
        Self::LostCard,
        Self::StolenCard,
        Self::ExpiredCard,
        Self::IncorrectCvc,
        Self::ProcessingError,
    ];

    /// The outcome of a card, by Stripe's test card numbers.
    pub(super) fn of_card(card: &Card, today: NaiveDate) -> Self {
        match card.number.expose() {
            "4000000000000002" => Self::GenericDecline,
            "4000000000009995" => Self::InsufficientFunds,
            "4000000000009987" => Self::LostCard,
            "4000000000009979" => Self::StolenCard,
            "4000000000000069" => Self::ExpiredCard,
            "4000000000000127" => Self::IncorrectCvc,
            "4000000000000119" => Self::ProcessingError,
            "4000000000005126" => Self::RefundsFail,
            _ if card.is_expired_at(today) => Self::ExpiredCard,
            _ => Self::Success,
        }
    }

    /// The outcome that one of this gateway's own tokens carries. Returns `None` for other tokens.
    pub(super) fn of_own_token(token: &GatewayToken) -> Option<Self> {
        token
            .as_str()
            .strip_prefix(TOKEN_PREFIX)
            .and_then(Self::from_code)
    }

    pub(super) fn token(self) -> GatewayToken {
        GatewayToken::new(format!("{TOKEN_PREFIX}{}", self.code()))
    }

    fn from_code(code: &str) -> Option<Self> {
        Self::OF_TOKENS
            .into_iter()
            .find(|outcome| outcome.code() == code)
    }

    fn code(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::RefundsFail => "refunds_fail",
            Self::GenericDecline => "generic_decline",
            Self::InsufficientFunds => "insufficient_funds",
            Self::LostCard => "lost_card",
            Self::StolenCard => "stolen_card",
            Self::ExpiredCard => "expired_card",
            Self::IncorrectCvc => "incorrect_cvc",
            Self::ProcessingError => "processing_error",
            Self::NoSuchToken => "resource_missing",
        }
    }

    /// The error of a charge that fails, with Stripe's codes. Like Stripe, it only tells people that a lost or stolen card was
    /// declined, and it refuses the request if it does not know the token.
    pub(super) fn error(self) -> Option<GatewayError> {
        let message = match self {
            Self::Success | Self::RefundsFail => return None,
            Self::GenericDecline | Self::LostCard | Self::StolenCard => "The card was declined",
            Self::InsufficientFunds => "Insufficient funds",
            Self::ExpiredCard => "The card has expired",
            Self::IncorrectCvc => "The card's security code is incorrect",
            Self::ProcessingError => "An error occurred while processing the card",
            Self::NoSuchToken => {
                return Some(GatewayError::Refused(Refusal {
                    code: self.code().to_owned(),
                    message: "No such payment method".to_owned(),
                    param: Some("paymentMethod.token".to_owned()),
                }));
            }
        };
        Some(GatewayError::Declined(Decline::new(self.code(), message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cards::{Cvv, Pan};

    #[test]
    fn a_card_past_its_month_is_expired() {
        let of = |month, year| {
            let today = NaiveDate::from_ymd_opt(2026, 7, 31).expect("a date");
            let card = Card {
                number: Pan::parse("4242424242424242").expect("a number"),
                cvv: Cvv::parse("123").expect("a code"),
                expiry_month: month,
                expiry_year: year,
                holder_name: None,
            };
            Outcome::of_card(&card, today)
        };
        assert_eq!(of(7, 2026), Outcome::Success);
        assert_eq!(of(6, 2026), Outcome::ExpiredCard);
        assert_eq!(of(12, 2025), Outcome::ExpiredCard);
        assert_eq!(of(1, 2027), Outcome::Success);
    }

    #[test]
    fn a_token_carries_its_outcome() {
        for outcome in Outcome::OF_TOKENS {
            assert_eq!(Outcome::of_own_token(&outcome.token()), Some(outcome));
        }
    }
}
