//! Amounts in Stripe's own minor units. See <https://docs.stripe.com/currencies>.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::as_conversions)
)]

use crate::gateway::{GatewayError, Refusal};
use crate::money::{Amount, Currency};

/// Number of decimals of an amount at Stripe, if it differs from ISO 4217's exponent: the króna and the Ugandan shilling
/// are written with two decimals that must be zeros, the ariary without any. See
/// <https://docs.stripe.com/currencies#special-cases>.
const EXPONENTS: [(&str, u32); 3] = [("ISK", 2), ("UGX", 2), ("MGA", 0)];

/// The last decimal of an amount with three decimals must be a zero. See <https://docs.stripe.com/currencies#three-decimal>.
const THREE_DECIMALS_STEP: i64 = 10;

fn wire_exponent(currency: Currency) -> u32 {
    EXPONENTS
        .iter()
        .find(|(code, _)| *code == currency.code())
        .map_or(currency.exponent(), |(_, exponent)| *exponent)
}

/// Returns the amount in the form of Stripe's API.
///
/// # Errors
///
/// [`GatewayError::Refused`] for a fraction that the currency does not have at Stripe. Nothing is sent then.
pub(super) fn wire_amount(amount: Amount) -> Result<i64, GatewayError> {
    let (iso, wire) = (
        amount.currency().exponent(),
        wire_exponent(amount.currency()),
    );
    let number = match wire.checked_sub(iso) {
        Some(more) => times_ten(amount.minor(), more),
        None => over_ten(amount.minor(), iso.saturating_sub(wire)),
    };
    number
        .filter(|number| wire != 3 || number.checked_rem(THREE_DECIMALS_STEP) == Some(0))
        .ok_or_else(|| {
            GatewayError::Refused(Refusal {
                code: "invalid_amount".to_owned(),
                message: "The gateway has no such amount in this currency".to_owned(),
                param: Some("amount".to_owned()),
            })
        })
}

/// The amount of a number in Stripe's API. Returns `None` if ISO 4217 cannot express it.
pub(super) fn amount_of_wire(number: i64, currency: Currency) -> Option<Amount> {
    let (iso, wire) = (currency.exponent(), wire_exponent(currency));
    let minor = match wire.checked_sub(iso) {
        Some(more) => over_ten(number, more)?,
        None => times_ten(number, iso.saturating_sub(wire))?,
    };
    (minor >= 0).then(|| Amount::from_minor(minor, currency))
}

/// Appends zeros to a number. Returns `None` if it becomes too large.
fn times_ten(number: i64, zeros: u32) -> Option<i64> {
    number.checked_mul(10_i64.checked_pow(zeros)?)
}

/// Removes zeros from the end of a number. Returns `None` if it does not end with as many.
fn over_ten(number: i64, zeros: u32) -> Option<i64> {
    let divisor = 10_i64.checked_pow(zeros)?;
    (number.checked_rem(divisor)? == 0).then(|| number.checked_div(divisor))?
}

/// Returns the currency in Stripe's spelling.
pub(super) fn wire_currency(amount: Amount) -> String {
    amount.currency().code().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(minor: i64, code: &str) -> Amount {
        Amount::from_minor(minor, Currency::from_code(code).expect(code))
    }

    #[test]
    fn amounts_are_in_stripes_units() {
        let rows = [
            ("USD", 9_999, Some(9_999)),
            // Two decimals for charges; only payouts have none.
            ("HUF", 1_045, Some(1_045)),
            ("TWD", 1_045, Some(1_045)),
            ("BHD", 1_230, Some(1_230)),
            ("JOD", 1_230, Some(1_230)),
            ("KWD", 1_230, Some(1_230)),
            ("OMR", 1_230, Some(1_230)),
            ("TND", 1_230, Some(1_230)),
            ("BHD", 1_235, None),
            ("JOD", 1_231, None),
            ("KWD", 1_239, None),
            ("OMR", 1, None),
            ("TND", 1_235, None),
            ("ISK", 5, Some(500)),
            ("UGX", 5, Some(500)),
            ("MGA", 500, Some(5)),
            ("MGA", 550, None),
            ("ISK", crate::money::MAX_MINOR, Some(99_999_999_999_999_900)),
        ];
        for (code, minor, expected) in rows {
            let amount = amount(minor, code);
            let wire = wire_amount(amount).ok();
            assert_eq!(wire, expected, "{minor} {code}");
            if let Some(wire) = wire {
                assert_eq!(amount_of_wire(wire, amount.currency()), Some(amount));
            }
        }
    }

    #[test]
    fn currencies_without_decimals_are_those_that_stripe_publishes() {
        let published = "BIF CLP DJF GNF JPY KMF KRW PYG RWF VND VUV XAF XOF XPF";
        for code in published.split(' ') {
            assert_eq!(wire_amount(amount(500, code)).ok(), Some(500), "{code}");
        }
    }

    #[test]
    fn a_fraction_that_stripe_does_not_have_is_the_requests_fault() {
        match wire_amount(amount(1_235, "KWD")) {
            Err(GatewayError::Refused(refusal)) => {
                assert_eq!(refusal.code, "invalid_amount");
                assert_eq!(refusal.param.as_deref(), Some("amount"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_iso_4217_cannot_write_is_no_amount() {
        let isk = Currency::from_code("ISK").expect("ISK");
        assert_eq!(amount_of_wire(550, isk), None);
        assert_eq!(amount_of_wire(-100, isk), None);
    }

    #[test]
    fn currencies_are_in_lower_case() {
        assert_eq!(wire_currency(amount(1, "USD")), "usd");
    }
}
