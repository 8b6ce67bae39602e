use super::outcome::Outcome;
use super::scripted::Behaviour;
use crate::cards::{CardBrand, CardSummary};
use crate::gateway::GatewayToken;

/// The outcome of every charge of a token.
pub(super) fn outcome_of(token: &GatewayToken) -> Outcome {
    Outcome::of_own_token(token)
        .or_else(|| TestToken::find(token).map(|token| token.outcome))
        .unwrap_or(Outcome::NoSuchToken)
}

/// One of the tokens that exist in Stripe's test mode.
#[derive(Clone, Copy)]
pub(super) struct TestToken {
    brand: CardBrand,
    last4: &'static str,
    pub(super) outcome: Outcome,
}

impl TestToken {
    pub(super) fn find(token: &GatewayToken) -> Option<Self> {
        if Behaviour::of_token(token.as_str()).is_some() {
            return Some(Self::success(CardBrand::Visa, "4242"));
        }
        let name = token.as_str().strip_prefix("pm_card_")?;
        match name {
            "visa" => Some(Self::success(CardBrand::Visa, "4242")),
            "visa_debit" => Some(Self::success(CardBrand::Visa, "5556")),
            "mastercard" => Some(Self::success(CardBrand::Mastercard, "4444")),
            "amex" => Some(Self::success(CardBrand::Amex, "0005")),
            "discover" => Some(Self::success(CardBrand::Discover, "1117")),
            "diners" => Some(Self::success(CardBrand::Diners, "0004")),
            "jcb" => Some(Self::success(CardBrand::Jcb, "0505")),
            "unionpay" => Some(Self::success(CardBrand::UnionPay, "0005")),
            "refundFail" => Some(Self {
                outcome: Outcome::RefundsFail,
                ..Self::success(CardBrand::Visa, "5126")
            }),
            // Stripe has used both `pm_card_chargeDeclined` and `pm_card_visa_chargeDeclined`.
            _ => Self::declined_for(name.strip_prefix("visa_").unwrap_or(name)),
        }
    }

    fn declined_for(name: &str) -> Option<Self> {
        match name.strip_prefix("chargeDeclined")? {
            "" => Some(Self::declined("0002", Outcome::GenericDecline)),
            "InsufficientFunds" => Some(Self::declined("9995", Outcome::InsufficientFunds)),
            "LostCard" => Some(Self::declined("9987", Outcome::LostCard)),
            "StolenCard" => Some(Self::declined("9979", Outcome::StolenCard)),
            "ExpiredCard" => Some(Self::declined("0069", Outcome::ExpiredCard)),
            "IncorrectCvc" => Some(Self::declined("0127", Outcome::IncorrectCvc)),
            "ProcessingError" => Some(Self::declined("0119", Outcome::ProcessingError)),
            _ => None,
        }
    }

    fn success(brand: CardBrand, last4: &'static str) -> Self {
        Self {
            brand,
            last4,
            outcome: Outcome::Success,
        }
    }

    fn declined(last4: &'static str, outcome: Outcome) -> Self {
        Self {
            brand: CardBrand::Visa,
            last4,
            outcome,
        }
    }

    pub(super) fn summary(self) -> CardSummary {
        CardSummary {
            brand: self.brand.as_str().to_owned(),
            last4: self.last4.to_owned(),
            expiry_month: 12,
            expiry_year: 2034,
            holder_name: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stripes() {
        let rows = [
            ("pm_card_visa", Some(("visa", "4242", Outcome::Success))),
            (
                "pm_card_visa_debit",
                Some(("visa", "5556", Outcome::Success)),
            ),
            (
                "pm_card_mastercard",
                Some(("mastercard", "4444", Outcome::Success)),
            ),
            (
                "pm_card_chargeDeclined",
                Some(("visa", "0002", Outcome::GenericDecline)),
            ),
            (
                "pm_card_visa_chargeDeclined",
                Some(("visa", "0002", Outcome::GenericDecline)),
            ),
            (
                "pm_card_chargeDeclinedLostCard",
                Some(("visa", "9987", Outcome::LostCard)),
            ),
            (
                "pm_card_visa_chargeDeclinedLostCard",
                Some(("visa", "9987", Outcome::LostCard)),
            ),
            ("pm_card_", None),
            ("pm_card_debit", None),
            ("pm_card_visa_mastercard", None),
            ("pm_card_Visa", None),
            ("pm_card_chargeDeclinedOther", None),
            ("pm_simulated_success", None),
            ("visa", None),
        ];
        for (name, expected) in rows {
            let found = TestToken::find(&GatewayToken::new(name));
            let found = found.map(|token| (token.brand.as_str(), token.last4, token.outcome));
            assert_eq!(found, expected, "{name}");
        }
    }
}
