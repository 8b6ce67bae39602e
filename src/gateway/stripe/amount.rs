use crate::gateway::Decline;
use crate::money::Amount;

/// How many decimals an amount has at Stripe where that differs from ISO 4217's exponent: the króna and the Ugandan shilling
/// are written with two decimals that must be zeros, the ariary without any. See
/// <https://docs.stripe.com/currencies#special-cases>.
const EXPONENTS: [(&str, u32); 3] = [("ISK", 2), ("UGX", 2), ("MGA", 0)];

/// The number that means this amount to Stripe.
///
/// # Errors
///
/// A fraction that the currency does not have at Stripe. Nothing is sent then.
pub(super) fn wire_amount(amount: Amount) -> Result<i64, Decline> {
    let currency = amount.currency();
    let exponent = EXPONENTS
        .iter()
        .find(|(code, _)| *code == currency.code())
        .map_or(currency.exponent(), |(_, exponent)| *exponent);
    let wire = if exponent >= currency.exponent() {
        let factor = 10_i64.checked_pow(exponent - currency.exponent());
        factor.and_then(|factor| amount.minor().checked_mul(factor))
    } else {
        let divisor = 10_i64.checked_pow(currency.exponent() - exponent);
        divisor
            .filter(|divisor| amount.minor() % divisor == 0)
            .map(|divisor| amount.minor() / divisor)
    };
    wire.ok_or_else(|| {
        Decline::new(
            "invalid_amount",
            "The gateway has no such amount in this currency",
        )
    })
}

/// The currency as Stripe spells it.
pub(super) fn wire_currency(amount: Amount) -> String {
    amount.currency().code().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;

    #[test]
    fn amounts_are_in_stripes_units() {
        let rows = [
            ("USD", 9_999, Some(9_999)),
            ("JPY", 100, Some(100)),
            ("KWD", 1_230, Some(1_230)),
            ("HUF", 1_045, Some(1_045)),
            ("ISK", 5, Some(500)),
            ("UGX", 5, Some(500)),
            ("MGA", 500, Some(5)),
            ("MGA", 550, None),
            ("ISK", crate::money::MAX_MINOR, Some(99_999_999_999_999_900)),
        ];
        for (code, minor, expected) in rows {
            let currency = Currency::from_code(code).expect(code);
            let wire = wire_amount(Amount::from_minor(minor, currency));
            assert_eq!(wire.ok(), expected, "{minor} {code}");
        }
    }

    #[test]
    fn currencies_are_in_lower_case() {
        let usd = Currency::from_code("USD").expect("USD");
        assert_eq!(wire_currency(Amount::from_minor(1, usd)), "usd");
    }
}
