//! Cards, which are kept only until the gateway has them.
//!
//! The number and the security code have types that are wiped when dropped, print no more than PCI DSS 3.4.1 allows, and have no
//! `Display` and no `Serialize`. Only a [`CardSummary`] outlives the request.

mod brand;
mod cvv;
mod digits;
mod pan;

use chrono::{Datelike, NaiveDate};

pub use self::brand::CardBrand;
pub use self::cvv::Cvv;
pub(crate) use self::digits::digit_of;
pub use self::pan::Pan;

/// Why a text is not a card number or security code. The error's text is the message for the field. It never repeats the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// It has other characters than digits, or too few or too many digits.
    #[error("must be {} to {} digits", pan::MIN_DIGITS, pan::MAX_DIGITS)]
    NumberFormat,
    /// The check digit is wrong (ISO/IEC 7812-1, Annex B), or no issuer of payment cards has such numbers.
    #[error("is not a valid card number")]
    CheckDigit,
    /// It does not have three or four digits.
    #[error("must be 3 or 4 digits")]
    CvvFormat,
}

/// A card in a client's request.
#[derive(Debug)]
pub struct Card {
    /// The number on the front.
    pub number: Pan,
    /// The security code.
    pub cvv: Cvv,
    /// The month at the end of which the card expires, 1–12.
    pub expiry_month: u8,
    /// Its year, four digits.
    pub expiry_year: u16,
    /// The name on the card.
    pub holder_name: Option<String>,
}

impl Card {
    /// Returns the parts of the card that may be stored and shown.
    pub fn summary(&self) -> CardSummary {
        CardSummary {
            brand: self.number.brand().as_str().to_owned(),
            last4: self.number.last4().to_owned(),
            expiry_month: self.expiry_month,
            expiry_year: self.expiry_year,
            holder_name: self.holder_name.clone(),
        }
    }

    /// Returns true if the month on the card is over. A card is valid until the last day of its month.
    pub fn is_expired_at(&self, date: NaiveDate) -> bool {
        let expiry = (i32::from(self.expiry_year), u32::from(self.expiry_month));
        expiry < (date.year(), date.month())
    }
}

/// The parts of a card that PCI DSS allows to be stored and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardSummary {
    /// A [`CardBrand`]'s name: `visa`.
    pub brand: String,
    /// The number's last four digits.
    pub last4: String,
    /// 1–12.
    pub expiry_month: u8,
    /// Four digits.
    pub expiry_year: u16,
    /// The name on the card.
    pub holder_name: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(expiry_month: u8, expiry_year: u16) -> Card {
        Card {
            number: Pan::parse("4242424242424242").expect("a number"),
            cvv: Cvv::parse("123").expect("a code"),
            expiry_month,
            expiry_year,
            holder_name: Some("Test User".to_owned()),
        }
    }

    #[test]
    fn expires_when_its_month_is_over() {
        let date = |year, month, day| NaiveDate::from_ymd_opt(year, month, day).expect("a date");
        let rows = [
            (date(2031, 11, 30), false),
            (date(2031, 12, 1), false),
            (date(2031, 12, 31), false),
            (date(2032, 1, 1), true),
            (date(2032, 12, 1), true),
            (date(2030, 12, 31), false),
        ];
        for (date, expired) in rows {
            assert_eq!(card(12, 2031).is_expired_at(date), expired, "{date}");
        }
        assert!(!card(2, 2028).is_expired_at(date(2028, 2, 29)));
        assert!(card(2, 2028).is_expired_at(date(2028, 3, 1)));
    }

    #[test]
    fn the_summary_has_the_last_four_digits_only() {
        let expected = CardSummary {
            brand: "visa".to_owned(),
            last4: "4242".to_owned(),
            expiry_month: 12,
            expiry_year: 2031,
            holder_name: Some("Test User".to_owned()),
        };
        assert_eq!(card(12, 2031).summary(), expected);
    }

    #[test]
    fn debug_shows_neither_number_nor_code() {
        let shown = format!("{:?}", card(12, 2031));
        assert!(
            shown.contains("Pan(****4242)") && shown.contains("Cvv(***)"),
            "{shown}"
        );
        assert!(
            !shown.contains("42424") && !shown.contains("123"),
            "{shown}"
        );
    }
}
