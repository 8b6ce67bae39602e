use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{CardBrand, CardError, digit_of};

/// The shortest number in use.
pub(super) const MIN_DIGITS: usize = 12;
/// The longest number that ISO/IEC 7812-1 allows.
pub(super) const MAX_DIGITS: usize = 19;

/// A card's primary account number: 12–19 digits, the last of which checks the others.
///
/// [`fmt::Debug`] shows the last four digits, which PCI DSS 3.4.1 allows.
pub struct Pan(SecretString);

impl Pan {
    /// Parses digits. There may be single spaces or hyphens between them, as on a card.
    ///
    /// # Errors
    ///
    /// [`CardError::NumberFormat`] if it has other characters or a wrong length, or [`CardError::CheckDigit`].
    pub fn parse(text: &str) -> Result<Self, CardError> {
        let digits = SecretString::from(digits_of(text).ok_or(CardError::NumberFormat)?);
        if is_number(digits.expose_secret()) {
            Ok(Self(digits))
        } else {
            Err(CardError::CheckDigit)
        }
    }

    /// The digits, for the gateway only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The last four digits.
    pub fn last4(&self) -> &str {
        let digits = self.expose();
        digits
            .get(digits.len().saturating_sub(4)..)
            .unwrap_or_default()
    }

    /// The network that issued the number, by its first digits.
    pub fn brand(&self) -> CardBrand {
        CardBrand::of(self.expose())
    }

    /// Returns true if a text contains the number, in any script and with anything between its digits. Such a text must not be
    /// kept.
    pub fn is_in(&self, text: &str) -> bool {
        let digit_count = text.chars().filter(|c| digit_of(*c).is_some()).count();
        digit_count >= self.expose().len()
            && all_digits(text.chars(), digit_count)
                .expose_secret()
                .contains(self.expose())
    }

    /// Returns true if a text may contain a card number: 12 to 19 digits that pass the check, with only punctuation between them
    /// and no further digit next to them.
    pub fn may_be_in(text: &str) -> bool {
        text.split(|c: char| c.is_alphabetic()).any(|part| {
            let digit_count = part.chars().filter(|c| digit_of(*c).is_some()).count();
            (MIN_DIGITS..=MAX_DIGITS).contains(&digit_count)
                && is_number(all_digits(part.chars(), digit_count).expose_secret())
        })
    }
}

impl fmt::Debug for Pan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pan(****{})", self.last4())
    }
}

/// The digits alone. The string has its final size from the start: growing would leave copies that nobody wipes.
fn digits_of(text: &str) -> Option<String> {
    let mut digits = String::with_capacity(text.bytes().filter(u8::is_ascii_digit).count());
    let mut after_digit = false;
    for symbol in text.chars() {
        match symbol {
            '0'..='9' => digits.push(symbol),
            ' ' | '-' if after_digit => {}
            _ => return None,
        }
        after_digit = symbol.is_ascii_digit();
    }
    (after_digit && (MIN_DIGITS..=MAX_DIGITS).contains(&digits.len())).then_some(digits)
}

/// The digits in a text, as ASCII. The string has its final size from the start, as that of [`digits_of`].
fn all_digits(text: impl Iterator<Item = char>, count: usize) -> SecretString {
    let mut digits = String::with_capacity(count);
    digits.extend(
        text.filter_map(digit_of)
            .map(|digit| char::from(b'0' + digit)),
    );
    SecretString::from(digits)
}

/// No payment card's number begins with a zero: ISO/IEC 7812-1, Annex A, assigns it to no issuer.
fn is_number(digits: &str) -> bool {
    !digits.starts_with('0') && passes_luhn(digits)
}

/// The check of ISO/IEC 7812-1, Annex B: from the right, every second digit is doubled, and its digits are added up.
fn passes_luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .zip([false, true].into_iter().cycle())
        .map(|(byte, doubled)| match (u32::from(byte - b'0'), doubled) {
            (digit, false) => digit,
            (digit, true) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pan(text: &str) -> Pan {
        Pan::parse(text).expect(text)
    }

    #[test]
    fn spaces_and_dashes_between_digits_make_no_difference() {
        for text in [
            "4242424242424242",
            "4242 4242 4242 4242",
            "4242-4242-4242-4242",
            "4 2-42424242424242",
        ] {
            assert_eq!(pan(text).expose(), "4242424242424242");
        }
    }

    #[test]
    fn other_texts_are_no_number() {
        let rows = [
            "",
            " ",
            "4242",
            " 4242424242424242",
            "4242424242424242 ",
            "4242  4242 4242 4242",
            "4242- 424242424242",
            "-4242424242424242",
            "4242424242424242-",
            "4242.4242.4242.4242",
            "4242424242424242\n",
            "424242424242424x",
            "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",
        ];
        for text in rows {
            assert_eq!(
                Pan::parse(text).err(),
                Some(CardError::NumberFormat),
                "{text:?}"
            );
        }
    }

    #[test]
    fn has_12_to_19_digits() {
        let format = Some(CardError::NumberFormat);
        // An 8 in an odd place counts 8, and in an even place 7. With a final 2 or 3 the check passes.
        for (length, end, error) in [
            (11, "2", format),
            (12, "3", None),
            (19, "2", None),
            (20, "3", format),
        ] {
            let number = format!("8{}{end}", "0".repeat(length - 2));
            assert_eq!(Pan::parse(&number).err(), error, "{length}");
        }
    }

    #[test]
    fn a_number_of_nobody_is_none() {
        for length in MIN_DIGITS..=MAX_DIGITS {
            let zeros = "0".repeat(length);
            assert_eq!(
                Pan::parse(&zeros).err(),
                Some(CardError::CheckDigit),
                "{length}"
            );
        }
        assert_eq!(
            Pan::parse("0242424242424246").err(),
            Some(CardError::CheckDigit)
        );
    }

    #[test]
    fn one_wrong_digit_or_two_swapped_fail_the_check() {
        for text in [
            "4242424242424241",
            "4242424242424243",
            "4000000000009959",
            "5242424242424242",
        ] {
            assert_eq!(
                Pan::parse(text).err(),
                Some(CardError::CheckDigit),
                "{text}"
            );
        }
        pan("4000000000009995");
        pan("378282246310005");
    }

    #[test]
    fn debug_and_errors_show_no_number() {
        assert_eq!(format!("{:?}", pan("4000000000009995")), "Pan(****9995)");
        let errors = [Pan::parse("4242424242424241"), Pan::parse("4242")]
            .map(|result| result.expect_err("no number"));
        assert!(
            errors
                .iter()
                .all(|error| !format!("{error} {error:?}").contains("4242"))
        );
    }

    #[test]
    fn is_found_in_a_text() {
        let number = pan("4242424242424242");
        for text in [
            "4242424242424242",
            "card 4242 4242-4242 4242!",
            "a4242424242424242b",
            "4242.4242.4242.4242",
            "4242_4242_4242_4242",
            "4242  4242\n4242\t4242",
            "4242\u{a0}4242\u{2011}4242\u{200b}4242",
            "order 4242, 4242, 4242, 4242",
            "4242a4242b4242c4242",
            "no. 7: ４２４２ ４２４２ ４２４２ ４２４２",
            "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",
            "4242④②4242424242",
            "94242424242424242",
        ] {
            assert!(number.is_in(text), "{text}");
        }
        for text in [
            "",
            "4242",
            "424242424242424",
            "4242424242424241",
            "order 4242, 4242, 4242, 424",
            "４２４２４２４２４２４２４２４１",
        ] {
            assert!(!number.is_in(text), "{text}");
        }
    }

    #[test]
    fn what_may_be_some_cards_number_is_seen() {
        for text in [
            "4242424242424242",
            "4242_4242_4242_4242",
            "4242--4242--4242--4242",
            "tok_4242424242424242",
            "4242.4242.4242.4242-x",
        ] {
            assert!(Pan::may_be_in(text), "{text}");
        }
        for text in [
            "pm_card_visa",
            "pm_1N3T0K2eZvKYlo2CeFGQXbcK",
            "tok_4242424242424241",
            "4242a4242b4242c4242",
            "000000000000",
            "42424242424242424242424242",
        ] {
            assert!(!Pan::may_be_in(text), "{text}");
        }
    }
}
