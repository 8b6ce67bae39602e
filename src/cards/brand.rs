/// The network that issued a card, under the names that Stripe's API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum CardBrand {
    /// American Express.
    Amex,
    /// Diners Club.
    Diners,
    /// Discover.
    Discover,
    /// JCB.
    Jcb,
    /// Mastercard.
    Mastercard,
    /// UnionPay.
    UnionPay,
    /// Visa.
    Visa,
    /// None of them.
    Unknown,
}

impl CardBrand {
    /// Finds the brand by a number's first four digits (ISO/IEC 7812-1 issuer identification numbers).
    pub(super) fn of(digits: &str) -> Self {
        let prefix = digits
            .get(..4)
            .and_then(|prefix| prefix.parse::<u16>().ok());
        match prefix.unwrap_or_default() {
            4000..=4999 => Self::Visa,
            2221..=2720 | 5100..=5599 => Self::Mastercard,
            3400..=3499 | 3700..=3799 => Self::Amex,
            6011 | 6440..=6599 => Self::Discover,
            3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => Self::Diners,
            3528..=3589 => Self::Jcb,
            6200..=6299 | 8100..=8171 => Self::UnionPay,
            _ => Self::Unknown,
        }
    }

    /// The name: `visa`, `mastercard`, …, `unknown`.
    pub fn as_str(self) -> &'static str {
        self.into_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_test_numbers_have_stripes_brands() {
        let rows = [
            ("4242424242424242", "visa"),
            ("4000056655665556", "visa"),
            ("5555555555554444", "mastercard"),
            ("2223003122003222", "mastercard"),
            ("5105105105105100", "mastercard"),
            ("378282246310005", "amex"),
            ("371449635398431", "amex"),
            ("6011111111111117", "discover"),
            ("6011000990139424", "discover"),
            ("3056930009020004", "diners"),
            ("36227206271667", "diners"),
            ("3566002020360505", "jcb"),
            ("6200000000000005", "unionpay"),
            ("6205500000000000004", "unionpay"),
        ];
        for (number, brand) in rows {
            assert_eq!(
                super::super::Pan::parse(number)
                    .expect(number)
                    .brand()
                    .as_str(),
                brand
            );
        }
    }

    #[test]
    fn ranges_end_where_they_end() {
        let rows = [
            ("3999", "diners"),
            ("4000", "visa"),
            ("4999", "visa"),
            ("5000", "unknown"),
            ("5099", "unknown"),
            ("5100", "mastercard"),
            ("5599", "mastercard"),
            ("5600", "unknown"),
            ("2220", "unknown"),
            ("2221", "mastercard"),
            ("2720", "mastercard"),
            ("2721", "unknown"),
            ("3527", "unknown"),
            ("3528", "jcb"),
            ("3589", "jcb"),
            ("3590", "unknown"),
            ("6010", "unknown"),
            ("6012", "unknown"),
            ("6439", "unknown"),
            ("6440", "discover"),
            ("6599", "discover"),
            ("6600", "unknown"),
            ("", "unknown"),
        ];
        for (prefix, brand) in rows {
            assert_eq!(CardBrand::of(prefix).as_str(), brand, "{prefix}");
        }
    }
}
