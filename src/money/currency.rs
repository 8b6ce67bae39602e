use std::fmt;

/// A currency of ISO 4217 that has an exponent, so that amounts can be written in it.
///
/// Gold, special drawing rights, the code for tests and others (`XAU`, `XDR`, `XTS`, …) have none and are left out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Currency {
    iso: iso_currency::Currency,
    exponent: u32,
}

impl Currency {
    /// Looks up an alphabetic code in upper case.
    pub fn from_code(code: &str) -> Option<Self> {
        let iso = iso_currency::Currency::from_code(code)?;
        let exponent = iso.exponent()?.into();
        Some(Self { iso, exponent })
    }

    /// The alphabetic code: `USD`.
    pub fn code(&self) -> &'static str {
        self.iso.code()
    }

    /// Number of decimals: USD 2, JPY 0, KWD 3. ISO 4217 has none above 4.
    pub fn exponent(&self) -> u32 {
        self.exponent
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_those_of_iso_4217() {
        let rows = [
            ("USD", 2),
            ("EUR", 2),
            ("JPY", 0),
            ("ISK", 0),
            ("UGX", 0),
            ("HUF", 2),
            ("KWD", 3),
            ("TND", 3),
            ("CLF", 4),
        ];
        for (code, exponent) in rows {
            let currency = Currency::from_code(code).expect(code);
            assert_eq!((currency.code(), currency.exponent()), (code, exponent));
        }
    }

    #[test]
    fn the_only_currencies_without_two_decimals_are_iso_4217s() {
        let with_exponent = |exponent| {
            let mut codes: Vec<&str> = (0..=999)
                .filter_map(iso_currency::Currency::from_numeric)
                .filter_map(|iso| Currency::from_code(iso.code()))
                .filter(|currency| currency.exponent() == exponent)
                .map(|currency| currency.code())
                .collect();
            codes.sort_unstable();
            codes.join(" ")
        };
        assert_eq!(
            with_exponent(0),
            "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
        );
        assert_eq!(with_exponent(1), "");
        assert_eq!(with_exponent(3), "BHD IQD JOD KWD LYD OMR TND");
        assert_eq!(with_exponent(4), "CLF UYW");
        assert!((5..=28).all(|exponent| with_exponent(exponent).is_empty()));
    }

    #[test]
    fn other_texts_are_no_currency() {
        for code in [
            "", "US", "USDX", "usd", "Usd", " USD", "ÄB", "ABC", "XAU", "XDR", "XTS", "XXX",
        ] {
            assert_eq!(Currency::from_code(code), None, "{code}");
        }
    }
}
