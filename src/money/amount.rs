use std::cmp::Ordering;
use std::fmt;

use super::Currency;

/// The largest amount, in minor units: 10^15 - 1.
///
/// Clients parse JSON numbers as doubles, and a double represents any decimal of up to 15 digits without loss (IEEE 754; `DBL_DIG`
/// in C). With one more digit, a client in JavaScript could show a different amount from the one that was charged.
pub const MAX_MINOR: i64 = 999_999_999_999_999;

/// A sum of money: a whole number of a currency's minor units.
///
/// [`fmt::Display`] writes it in the major unit, with as many decimals as the currency has: `99.99`, `0.00`; in yen `100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    minor: i64,
    currency: Currency,
}

/// Why an amount cannot be computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArithmeticError {
    /// The two amounts have different currencies.
    #[error("an amount in {0} and one in {1} cannot be combined")]
    CurrenciesDiffer(&'static str, &'static str),
    /// The sum does not fit.
    #[error("the amount is too large")]
    TooLarge,
    /// The result is below zero.
    #[error("the amount is below zero")]
    BelowZero,
}

impl Amount {
    /// Creates an amount from minor units (cents), which must not be negative. [`Amount::try_from_minor`] checks it.
    pub fn from_minor(minor: i64, currency: Currency) -> Self {
        debug_assert!(minor >= 0, "an amount is not negative");
        Self { minor, currency }
    }

    /// Creates an amount from minor units (cents) that come from outside of the program.
    ///
    /// # Errors
    ///
    /// [`ArithmeticError::BelowZero`].
    pub fn try_from_minor(minor: i64, currency: Currency) -> Result<Self, ArithmeticError> {
        match minor {
            0.. => Ok(Self { minor, currency }),
            _ => Err(ArithmeticError::BelowZero),
        }
    }

    /// Zero, in a currency.
    pub fn zero(currency: Currency) -> Self {
        Self { minor: 0, currency }
    }

    /// Number of minor units (cents).
    pub fn minor(&self) -> i64 {
        self.minor
    }

    /// The currency.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.minor == 0
    }

    /// The sum of two amounts.
    ///
    /// # Errors
    ///
    /// [`ArithmeticError::CurrenciesDiffer`] or [`ArithmeticError::TooLarge`].
    pub fn checked_add(self, other: Self) -> Result<Self, ArithmeticError> {
        self.in_one_currency(other)?;
        let minor = self.minor.checked_add(other.minor);
        let minor = minor.ok_or(ArithmeticError::TooLarge)?;
        Ok(Self { minor, ..self })
    }

    /// The difference between this amount and the other.
    ///
    /// # Errors
    ///
    /// [`ArithmeticError::CurrenciesDiffer`] or [`ArithmeticError::BelowZero`].
    pub fn checked_sub(self, other: Self) -> Result<Self, ArithmeticError> {
        self.in_one_currency(other)?;
        let minor = self.minor.checked_sub(other.minor);
        let minor = minor.filter(|minor| *minor >= 0);
        let minor = minor.ok_or(ArithmeticError::BelowZero)?;
        Ok(Self { minor, ..self })
    }

    /// Compares two amounts of one currency.
    ///
    /// # Errors
    ///
    /// [`ArithmeticError::CurrenciesDiffer`].
    fn checked_cmp(self, other: Self) -> Result<Ordering, ArithmeticError> {
        self.in_one_currency(other)?;
        Ok(self.minor.cmp(&other.minor))
    }

    /// Whether this amount is larger than another of its currency.
    ///
    /// # Errors
    ///
    /// [`ArithmeticError::CurrenciesDiffer`].
    pub fn exceeds(self, other: Self) -> Result<bool, ArithmeticError> {
        self.checked_cmp(other).map(Ordering::is_gt)
    }

    fn in_one_currency(self, other: Self) -> Result<(), ArithmeticError> {
        let (one, another) = (self.currency, other.currency);
        if one == another {
            return Ok(());
        }
        Err(ArithmeticError::CurrenciesDiffer(
            one.code(),
            another.code(),
        ))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exponent = self.currency.exponent();
        if exponent == 0 {
            return write!(f, "{}", self.minor);
        }
        // ISO 4217's exponents end at 4, so nothing here fails.
        let parts = || {
            let units = 10_i64.checked_pow(exponent)?;
            let major = self.minor.checked_div(units)?;
            let rest = self.minor.checked_rem(units)?;
            Some((major, rest, usize::try_from(exponent).ok()?))
        };
        let (major, rest, decimals) = parts().ok_or(fmt::Error)?;
        write!(f, "{major}.{rest:0decimals$}")
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
    fn sums_and_differences_are_exact_or_an_error() {
        let usd = |minor| amount(minor, "USD");
        assert_eq!(usd(1).checked_add(usd(2)), Ok(usd(3)));
        assert_eq!(usd(i64::MAX - 1).checked_add(usd(1)), Ok(usd(i64::MAX)));
        assert_eq!(
            usd(i64::MAX).checked_add(usd(1)),
            Err(ArithmeticError::TooLarge)
        );
        assert_eq!(usd(3).checked_sub(usd(3)), Ok(usd(0)));
        assert_eq!(usd(2).checked_sub(usd(3)), Err(ArithmeticError::BelowZero));
    }

    #[test]
    fn amounts_are_compared_by_their_size() {
        let usd = |minor| amount(minor, "USD");
        assert_eq!(usd(2).exceeds(usd(1)), Ok(true));
        assert_eq!(usd(1).exceeds(usd(1)), Ok(false));
        assert_eq!(usd(1).exceeds(usd(2)), Ok(false));
        assert!(usd(0).is_zero() && !usd(1).is_zero());
    }

    #[test]
    fn two_currencies_are_never_combined() {
        let (usd, eur) = (amount(2, "USD"), amount(1, "EUR"));
        let differ = ArithmeticError::CurrenciesDiffer("USD", "EUR");
        assert_eq!(usd.checked_add(eur), Err(differ));
        assert_eq!(usd.checked_sub(eur), Err(differ));
        assert_eq!(usd.exceeds(eur), Err(differ));
    }

    #[test]
    fn a_number_below_zero_is_no_amount() {
        let usd = Currency::from_code("USD").expect("USD");
        let try_from = |minor| Amount::try_from_minor(minor, usd);
        assert_eq!(try_from(0), Ok(Amount::zero(usd)));
        assert_eq!(try_from(-1), Err(ArithmeticError::BelowZero));
    }

    #[test]
    fn the_same_number_of_another_currency_is_another_amount() {
        assert_eq!(amount(100, "USD"), amount(100, "USD"));
        assert_ne!(amount(100, "USD"), amount(100, "EUR"));
        assert_ne!(amount(100, "USD"), amount(101, "USD"));
    }
}
