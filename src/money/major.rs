use rust_decimal::Decimal;

use super::amount::MAX_MINOR;
use super::{Amount, Currency};

/// A positive amount in a currency's major unit, exactly as a client wrote it: `99.99`.
///
/// The number of written decimals is kept, because the currency decides how many are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MajorAmount(Decimal);

/// Why a text is not an amount, or not one in a currency. The error's text is the message for the field. It never repeats the
/// input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// It is not in the syntax of a JSON number (RFC 8259, 6).
    #[error("must be a decimal number, such as 99.99")]
    NotANumber,
    /// Zero or less.
    #[error("must be greater than zero")]
    NotPositive,
    /// It has more digits than can be represented exactly, far more than any amount.
    #[error("has too many digits")]
    TooManyDigits,
    /// A fraction of the currency's minor unit, or zeros in a currency without decimals.
    #[error("must have {} in {}", decimals(*.exponent), .code)]
    TooManyDecimals {
        /// The currency's code.
        code: &'static str,
        /// Number of decimals of the currency.
        exponent: u32,
    },
    /// Above [`MAX_MINOR`].
    #[error("must be at most {max}", max = Amount::from_minor(MAX_MINOR, *.0))]
    TooLarge(Currency),
}

fn decimals(exponent: u32) -> String {
    match exponent {
        0 => "no decimals".to_owned(),
        1.. => format!("at most {exponent} decimals"),
    }
}

impl MajorAmount {
    /// Parses a number of RFC 8259: `99.99`, `100`, `1e2`; not `+1`, `.5`, `007` or `NaN`.
    ///
    /// # Errors
    ///
    /// [`AmountError::NotANumber`], [`AmountError::NotPositive`], or [`AmountError::TooManyDigits`] if it has more
    /// than the 28 digits that a decimal holds exactly.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let number = JsonNumber::split(text).ok_or(AmountError::NotANumber)?;
        let mantissa = number.mantissa();
        if number.negative || mantissa == Some(0) {
            return Err(AmountError::NotPositive);
        }
        mantissa
            .and_then(|mantissa| shifted(mantissa, number.scale()?))
            .map(Self)
            .ok_or(AmountError::TooManyDigits)
    }

    /// The amount's canonical form: `100` for `100`, `100.00` and `1e2`.
    pub fn canonical(&self) -> String {
        self.0.normalize().to_string()
    }

    /// The amount in a currency's minor units.
    ///
    /// # Errors
    ///
    /// [`AmountError::TooManyDecimals`] if more decimals were written than the currency has, even if they are zeros:
    /// `100.00` yen is more likely a mistake about the currency than a hundred yen. [`AmountError::TooLarge`] above
    /// [`MAX_MINOR`].
    pub fn to_amount(&self, currency: Currency) -> Result<Amount, AmountError> {
        let (code, exponent) = (currency.code(), currency.exponent());
        let zeros = exponent
            .checked_sub(self.0.scale())
            .ok_or(AmountError::TooManyDecimals { code, exponent })?;
        10_i128
            .checked_pow(zeros)
            .and_then(|units| self.0.mantissa().checked_mul(units))
            .and_then(|minor| i64::try_from(minor).ok())
            .filter(|minor| *minor <= MAX_MINOR)
            .map(|minor| Amount::from_minor(minor, currency))
            .ok_or(AmountError::TooLarge(currency))
    }
}

/// `mantissa` × 10^-`scale`. Returns `None` if a decimal cannot represent that exactly.
fn shifted(mantissa: i128, scale: i64) -> Option<Decimal> {
    let decimals = u32::try_from(scale.max(0)).ok()?;
    let zeros = u32::try_from(scale.min(0).unsigned_abs()).ok()?;
    let mantissa = mantissa.checked_mul(10_i128.checked_pow(zeros)?)?;
    Decimal::try_from_i128_with_scale(mantissa, decimals).ok()
}

/// The parts of a number in the syntax of RFC 8259, 6. Each consists of digits only.
struct JsonNumber<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
    /// With its sign.
    exponent: &'a str,
}

impl<'a> JsonNumber<'a> {
    fn split(text: &'a str) -> Option<Self> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (significand, exponent) = split_part(unsigned, &['e', 'E']);
        let (integer, fraction) = split_part(significand, &['.']);
        let valid = is_digits(integer)
            && (integer == "0" || !integer.starts_with('0'))
            && fraction.is_none_or(is_digits)
            && exponent
                .is_none_or(|signed| is_digits(signed.strip_prefix(['+', '-']).unwrap_or(signed)));
        valid.then(|| Self {
            negative: text.len() > unsigned.len(),
            integer,
            fraction: fraction.unwrap_or_default(),
            exponent: exponent.unwrap_or("0"),
        })
    }

    /// All digits as one whole number. Returns `None` if that is too large.
    fn mantissa(&self) -> Option<i128> {
        self.integer
            .bytes()
            .chain(self.fraction.bytes())
            .try_fold(0_i128, |mantissa, digit| {
                mantissa
                    .checked_mul(10)?
                    .checked_add(i128::from(digit.checked_sub(b'0')?))
            })
    }

    /// Number of the mantissa's digits that are decimals. If negative, the number of zeros that follow the mantissa.
    fn scale(&self) -> Option<i64> {
        let fraction = i64::try_from(self.fraction.len()).ok()?;
        fraction.checked_sub(self.exponent.parse().ok()?)
    }
}

/// The text before the separator and, if there is one, the text after it.
fn split_part<'a>(text: &'a str, separator: &[char]) -> (&'a str, Option<&'a str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_currency(text: &str, code: &str) -> Result<String, AmountError> {
        let currency = Currency::from_code(code).expect(code);
        MajorAmount::parse(text)?
            .to_amount(currency)
            .map(|amount| amount.to_string())
    }

    #[test]
    fn one_amount_has_one_canonical_spelling() {
        let rows = [
            ("100", "100"),
            ("100.0", "100"),
            ("100.00", "100"),
            ("1e2", "100"),
            ("1E+2", "100"),
            ("1.00e2", "100"),
            ("10000e-2", "100"),
            ("1e0000000000000000000000002", "100"),
            ("99.99", "99.99"),
            ("99.990", "99.99"),
            ("0.10", "0.1"),
            ("9999e-2", "99.99"),
            ("0.1", "0.1"),
            ("1e-28", "0.0000000000000000000000000001"),
            (
                "79228162514264337593543950335",
                "79228162514264337593543950335",
            ),
        ];
        for (text, canonical) in rows {
            let amount = MajorAmount::parse(text).expect(text);
            assert_eq!(amount.canonical(), canonical, "{text}");
        }
    }

    #[test]
    fn other_syntax_is_no_number() {
        let rows = [
            "", " ", "+1", " 1", "1 ", "1_000", "1,000", "1,5", "0x10", "NaN", "inf", "Infinity",
            "-", "-NaN", ".5", "5.", "1.", "1.e2", "e2", "1e", "1e+", "1e+-2", "1e2.5", "1.2.3",
            "--1", "007", "00", "01.5", "1\n", "1\0", "½", "٣", "１", "$1", "1e2e3", "1-", "true",
        ];
        for text in rows {
            assert_eq!(
                MajorAmount::parse(text),
                Err(AmountError::NotANumber),
                "{text:?}"
            );
        }
    }

    #[test]
    fn nothing_and_less_are_not_positive() {
        for text in [
            "0",
            "0.00",
            "-0",
            "0e5",
            "0e999999999999999999999",
            "-1",
            "-0.01",
            "-1e400",
        ] {
            assert_eq!(
                MajorAmount::parse(text),
                Err(AmountError::NotPositive),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_held_exactly_is_refused() {
        let digits = "1".repeat(40);
        let long = "9".repeat(60_000);
        let rows = [
            "79228162514264337593543950336",
            "1e-29",
            "1.00000000000000000000000000001",
            "1e29",
            "1e400",
            "1e-400",
            "1e99999999999999999999",
            "1e-9223372036854775808",
            &digits,
            &long,
        ];
        for text in rows {
            assert_eq!(
                MajorAmount::parse(text),
                Err(AmountError::TooManyDigits),
                "{text:.50}"
            );
        }
    }

    #[test]
    fn decimals_are_counted_as_written() {
        let too_many = |code, exponent| Err(AmountError::TooManyDecimals { code, exponent });
        let rows = [
            ("100", "JPY", Ok("100")),
            ("1e2", "JPY", Ok("100")),
            ("1.5e1", "JPY", Ok("15")),
            ("100.0", "JPY", too_many("JPY", 0)),
            ("100.00", "JPY", too_many("JPY", 0)),
            ("10000e-2", "JPY", too_many("JPY", 0)),
            ("99.99", "USD", Ok("99.99")),
            ("100.0", "USD", Ok("100.00")),
            ("0.01", "USD", Ok("0.01")),
            ("0.001", "USD", too_many("USD", 2)),
            ("1.000", "USD", too_many("USD", 2)),
            ("1.234", "KWD", Ok("1.234")),
            ("1.2345", "KWD", too_many("KWD", 3)),
        ];
        for (text, code, expected) in rows {
            assert_eq!(
                in_currency(text, code),
                expected.map(str::to_owned),
                "{text} {code}"
            );
        }
    }

    #[test]
    fn the_largest_amount_is_fifteen_digits_of_minor_units() {
        assert_eq!(
            in_currency("9999999999999.99", "USD").as_deref(),
            Ok("9999999999999.99")
        );
        assert_eq!(
            in_currency("999999999999999", "JPY").as_deref(),
            Ok("999999999999999")
        );
        for (text, code) in [
            ("10000000000000.00", "USD"),
            ("1e13", "USD"),
            ("1e15", "JPY"),
            ("1e28", "KWD"),
        ] {
            let currency = Currency::from_code(code).expect(code);
            assert_eq!(
                in_currency(text, code),
                Err(AmountError::TooLarge(currency)),
                "{text} {code}"
            );
        }
    }

    #[test]
    fn messages_say_what_is_wanted() {
        let message = |text, code| in_currency(text, code).expect_err(text).to_string();
        assert_eq!(
            message("x", "USD"),
            "must be a decimal number, such as 99.99"
        );
        assert_eq!(
            message("1.001", "USD"),
            "must have at most 2 decimals in USD"
        );
        assert_eq!(message("1.0", "JPY"), "must have no decimals in JPY");
        assert_eq!(message("1e13", "USD"), "must be at most 9999999999999.99");
    }
}
