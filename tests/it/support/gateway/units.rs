//! Amounts as Stripe takes them. See <https://docs.stripe.com/currencies>.

use super::reply::ApiError;

/// The smallest amounts, where Stripe publishes one, in minor units.
const SMALLEST: [(&str, i64, &str); 6] = [
    ("usd", 50, "$0.50 usd"),
    ("eur", 50, "€0.50 eur"),
    ("gbp", 30, "£0.30 gbp"),
    ("chf", 50, "0.50 chf"),
    ("jpy", 50, "¥50 jpy"),
    ("dkk", 250, "2.50-kr. dkk"),
];

/// Has two decimals at Stripe that must be zeros.
const WHOLE: [&str; 2] = ["isk", "ugx"];

/// Has three decimals, of which the last must be zero.
const THREE_DECIMALS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];

/// In ISO 4217, and not at Stripe.
const UNSUPPORTED: [&str; 3] = ["clf", "iqd", "xau"];

/// Refuses an amount that Stripe does not take in a currency.
pub(super) fn check(amount: i64, currency: &str) -> Result<(), ApiError> {
    if UNSUPPORTED.contains(&currency) {
        let message = format!(
            "Invalid currency: {currency}. Stripe currently supports these currencies: usd, aed, …"
        );
        return Err(ApiError::invalid(message).param("currency"));
    }
    let step = match currency {
        currency if WHOLE.contains(&currency) => 100,
        currency if THREE_DECIMALS.contains(&currency) => 10,
        _ => 1,
    };
    if amount % step != 0 {
        let message = format!("Invalid {currency} amount {amount}: must be a multiple of {step}");
        return Err(ApiError::invalid(message)
            .code("invalid_charge_amount")
            .param("amount"));
    }
    match SMALLEST.iter().find(|(code, ..)| *code == currency) {
        Some((_, smallest, text)) if amount < *smallest => {
            let error = ApiError::invalid(format!("Amount must be at least {text}"));
            Err(error.code("amount_too_small").param("amount"))
        }
        _ => Ok(()),
    }
}
