use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::CardError;

/// A card's security code. PCI DSS 3.3.1.2 forbids keeping it in any form once the charge is authorized, so it goes only to the
/// gateway.
pub struct Cvv(SecretString);

impl Cvv {
    /// Parses three or four digits.
    ///
    /// # Errors
    ///
    /// [`CardError::CvvFormat`].
    pub fn parse(text: &str) -> Result<Self, CardError> {
        let valid = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| byte.is_ascii_digit());
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(CardError::CvvFormat)
        }
    }

    /// The digits, for the gateway only.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Cvv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cvv(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_three_or_four_digits() {
        for text in ["000", "123", "1234"] {
            assert_eq!(Cvv::parse(text).expect(text).expose(), text);
        }
        for text in ["", "12", "12345", "12a", " 123", "1 23", "+12", "١٢٣", "１"] {
            assert_eq!(
                Cvv::parse(text).err(),
                Some(CardError::CvvFormat),
                "{text:?}"
            );
        }
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(
            format!("{:?}", Cvv::parse("9876").expect("a code")),
            "Cvv(***)"
        );
    }
}
