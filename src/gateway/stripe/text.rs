//! Sanitizes text from Stripe that is stored or shown: bounded, without control characters, and without a card's number.

/// Maximum length of a code. Stripe has no longer ones.
const MAX_CODE_CHARS: usize = 64;
const MAX_MESSAGE_CHARS: usize = 200;
/// Maximum length of an id: Stripe's own.
const MAX_ID_CHARS: usize = 255;

/// Minimum number of digits in a row that could be a card's number (ISO/IEC 7812-1).
const MIN_PAN_DIGITS: usize = 12;

/// Whether a text looks like one of Stripe's codes.
pub(super) fn is_code(text: &str) -> bool {
    (1..=MAX_CODE_CHARS).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The code, if the text looks like one.
pub(super) fn code(text: Option<&str>) -> Option<String> {
    text.filter(|text| is_code(text)).map(str::to_owned)
}

/// Whether a text is an id with this prefix, such as `pi_…`.
pub(super) fn is_id(text: &str, prefix: &str) -> bool {
    text.len() <= MAX_ID_CHARS
        && text.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
}

/// A message for people. Returns `None` if a card's number could be in it, or if nothing is left.
pub(super) fn message(text: &str) -> Option<String> {
    let mut digits = 0_usize;
    for symbol in text.chars() {
        match symbol {
            '0'..='9' => digits += 1,
            ' ' | '-' => {}
            _ => digits = 0,
        }
        if digits >= MIN_PAN_DIGITS {
            return None;
        }
    }
    let shown: String = text
        .chars()
        .filter(|symbol| !symbol.is_control())
        .take(MAX_MESSAGE_CHARS)
        .collect();
    (!shown.trim().is_empty()).then_some(shown)
}

/// A message for the operator. Returns `None` also if part of an API key could be in it.
pub(super) fn operators_message(text: &str) -> Option<String> {
    let has_key = ["sk_", "rk_", "pk_", "**"]
        .iter()
        .any(|part| text.contains(part));
    if has_key { None } else { message(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_looks_like_one() {
        for good in ["card_declined", "05", "R0"] {
            assert_eq!(code(Some(good)).as_deref(), Some(good));
        }
        let long = "x".repeat(MAX_CODE_CHARS + 1);
        for bad in ["", "no code at all!", "nul\0", "line\nline", long.as_str()] {
            assert_eq!(code(Some(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn an_id_has_its_prefix_and_nothing_odd() {
        assert!(is_id("pi_3MtwBwLkdIwHu7ix28a3tqPa", "pi_"));
        let long = format!("pi_{}", "x".repeat(MAX_ID_CHARS));
        for bad in [
            "",
            "pi_",
            "re_1",
            "pi_1/../x",
            "pi_\0",
            "pi_1\n",
            " pi_1",
            long.as_str(),
        ] {
            assert!(!is_id(bad, "pi_"), "{bad:?}");
        }
    }

    #[test]
    fn a_message_is_bounded_and_holds_no_card_number() {
        assert_eq!(message("a\0b\nc").as_deref(), Some("abc"));
        assert_eq!(message("\0"), None);
        assert_eq!(
            message(&"é".repeat(500)).map(|m| m.chars().count()),
            Some(MAX_MESSAGE_CHARS)
        );
        for number in ["4242424242424242", "4242 4242 4242 4242", "4242-4242-4242"] {
            assert_eq!(message(&format!("Bad number {number}.")), None, "{number}");
        }
        let harmless = "After 12345678901 tries.";
        assert_eq!(message(harmless).as_deref(), Some(harmless));
    }

    #[test]
    fn an_operators_message_holds_no_part_of_a_key() {
        let version = "Invalid Stripe API version: 2020-01-01";
        assert_eq!(operators_message(version).as_deref(), Some(version));
        for key in [
            "Invalid API Key provided: sk_test_******once",
            "Expired: rk_live_x",
        ] {
            assert_eq!(operators_message(key), None);
        }
    }
}
