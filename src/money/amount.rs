use std::fmt;

use super::Currency;

/// The largest amount, in minor units: 10^15 - 1.
///
/// Clients read JSON numbers into doubles, and a double carries any decimal of up to 15 digits there and back unharmed
/// (IEEE 754; `DBL_DIG` in C). One more digit, and a client in JavaScript would show another amount than it was charged.
pub const MAX_MINOR: i64 = 999_999_999_999_999;

/// A sum of money: a whole number of a currency's minor units.
///
/// Written with [`fmt::Display`] it is in the major unit, with as many decimals as the currency has: `99.99`, `0.00`; in
/// yen `100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    minor: i64,
    currency: Currency,
}

impl Amount {
    /// Takes a number of minor units (cents), not negative.
    pub fn from_minor(minor: i64, currency: Currency) -> Self {
        debug_assert!(minor >= 0, "an amount is not negative");
        Self { minor, currency }
    }

    /// How many minor units (cents).
    pub fn minor(&self) -> i64 {
        self.minor
    }

    /// Of which currency.
    pub fn currency(&self) -> Currency {
        self.currency
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ISO 4217's exponents end at 4, so the power is far from overflowing.
        let units = 10_i64.pow(self.currency.exponent());
        match self.currency.exponent() {
            0 => write!(f, "{}", self.minor),
            1.. => {
                let decimals = usize::try_from(self.currency.exponent()).map_err(|_| fmt::Error)?;
                write!(
                    f,
                    "{}.{:0decimals$}",
                    self.minor / units,
                    self.minor % units
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(minor: i64, code: &str) -> Amount {
        Amount::from_minor(minor, Currency::from_code(code).expect(code))
    }

    #[test]
    fn is_written_with_the_currencys_decimals() {
        let rows = [
            (9999, "USD", "99.99"),
            (10000, "USD", "100.00"),
            (0, "USD", "0.00"),
            (9, "USD", "0.09"),
            (10, "USD", "0.10"),
            (99, "USD", "0.99"),
            (100, "USD", "1.00"),
            (100, "JPY", "100"),
            (0, "JPY", "0"),
            (1234, "KWD", "1.234"),
            (1, "KWD", "0.001"),
            (12345, "CLF", "1.2345"),
            (MAX_MINOR, "USD", "9999999999999.99"),
            (MAX_MINOR, "JPY", "999999999999999"),
            (i64::MAX, "USD", "92233720368547758.07"),
        ];
        for (minor, code, text) in rows {
            assert_eq!(amount(minor, code).to_string(), text);
        }
    }

    #[test]
    fn the_same_number_of_another_currency_is_another_amount() {
        assert_eq!(amount(100, "USD"), amount(100, "USD"));
        assert_ne!(amount(100, "USD"), amount(100, "EUR"));
        assert_ne!(amount(100, "USD"), amount(101, "USD"));
    }
}
