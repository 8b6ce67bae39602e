//! Sanitizes the text in a gateway's answer before anything else sees it: bounded, without control characters (PostgreSQL
//! stores no NUL), and without anything that may be a card's number. Values that decide something, such as amounts and states,
//! are never changed here.

use crate::cards::{CardSummary, Pan};
use crate::gateway::{Advice, Charged, Decline, GatewayError, GatewayToken, Refunded, Refusal};

/// Maximum length of a code. No gateway has longer ones.
const MAX_CODE_CHARS: usize = 64;

/// Maximum length of a text for people.
const MAX_TEXT_CHARS: usize = 200;

/// Maximum length of an id at the gateway: Stripe's own.
const MAX_ID_CHARS: usize = 255;

/// Maximum length of a card's number with separators. One that begins within the kept text ends within this many characters
/// after it.
const LONGEST_NUMBER_CHARS: usize = 40;

/// Replaces a decline's code that cannot be stored.
const PLAIN_CODE: &str = "generic_decline";

/// Replaces a decline's message that cannot be stored.
const PLAIN_MESSAGE: &str = "The gateway declined";

/// A gateway's answer that can be sanitized.
pub(super) trait Sanitize: Sized {
    /// The same answer; text that cannot be stored is cut, left out or replaced.
    #[must_use]
    fn sanitized(self) -> Self;

    /// The same answer without the text that is only for people, for a database that rejects the sanitized text.
    #[must_use]
    fn without_text(self) -> Self;
}

/// Sanitizes an answer or an error.
pub(super) fn answer<T: Sanitize>(answer: Result<T, GatewayError>) -> Result<T, GatewayError> {
    answer.map(T::sanitized).map_err(error)
}

fn error(error: GatewayError) -> GatewayError {
    let reason_of = |reason: String| text(&reason).unwrap_or_else(|| "not shown".to_owned());
    match error {
        GatewayError::Declined(decline) => GatewayError::Declined(decline.sanitized()),
        GatewayError::Refused(refusal) => GatewayError::Refused(refused(refusal)),
        GatewayError::HoldLapsed { reason } => GatewayError::HoldLapsed {
            reason: reason.as_deref().and_then(code),
        },
        GatewayError::Misconfigured { reason } => GatewayError::Misconfigured {
            reason: reason_of(reason),
        },
        GatewayError::NothingHappened { reason } => GatewayError::NothingHappened {
            reason: reason_of(reason),
        },
        GatewayError::Unknown { reason } => GatewayError::Unknown {
            reason: reason_of(reason),
        },
    }
}

fn refused(refusal: Refusal) -> Refusal {
    Refusal {
        code: code(&refusal.code).unwrap_or_else(|| "refused".to_owned()),
        message: text(&refusal.message)
            .unwrap_or_else(|| "The gateway refused the request".to_owned()),
        param: refusal.param.as_deref().and_then(code),
    }
}

impl Sanitize for () {
    fn sanitized(self) -> Self {}

    fn without_text(self) -> Self {}
}

/// A token is never changed, because a part of it would name another card. One that cannot be stored fails its claim, before
/// anything is charged.
impl Sanitize for GatewayToken {
    fn sanitized(self) -> Self {
        self
    }

    fn without_text(self) -> Self {
        self
    }
}

impl<T: Sanitize> Sanitize for Option<T> {
    fn sanitized(self) -> Self {
        self.map(T::sanitized)
    }

    fn without_text(self) -> Self {
        self.map(T::without_text)
    }
}

impl<T: Sanitize> Sanitize for Result<T, Decline> {
    fn sanitized(self) -> Self {
        self.map(T::sanitized).map_err(Decline::sanitized)
    }

    fn without_text(self) -> Self {
        self.map(T::without_text).map_err(Decline::without_text)
    }
}

impl Sanitize for Charged {
    fn sanitized(self) -> Self {
        Self {
            transaction_id: id(self.transaction_id, "a charge"),
            card: self.card.and_then(card),
        }
    }

    fn without_text(self) -> Self {
        Self { card: None, ..self }
    }
}

impl Sanitize for Refunded {
    fn sanitized(self) -> Self {
        Self {
            gateway_refund_id: id(self.gateway_refund_id, "a refund"),
            ..self
        }
    }

    fn without_text(self) -> Self {
        self
    }
}

impl Sanitize for Decline {
    fn sanitized(self) -> Self {
        let code_of = |text: Option<String>| text.as_deref().and_then(code);
        Self {
            code: code(&self.code).unwrap_or_else(|| PLAIN_CODE.to_owned()),
            message: text(&self.message).unwrap_or_else(|| PLAIN_MESSAGE.to_owned()),
            advice: Advice {
                advice_code: code_of(self.advice.advice_code),
                network_advice_code: code_of(self.advice.network_advice_code),
                network_decline_code: code_of(self.advice.network_decline_code),
            },
        }
    }

    fn without_text(self) -> Self {
        Self::new(PLAIN_CODE, PLAIN_MESSAGE)
    }
}

/// Sanitizes a card. Returns `None` if its fields hold more than may be shown of a card.
pub(super) fn card(card: CardSummary) -> Option<CardSummary> {
    let is_last4 = card.last4.len() == 4 && card.last4.bytes().all(|byte| byte.is_ascii_digit());
    let has_expiry = (1..=12).contains(&card.expiry_month) && card.expiry_year <= 9999;
    (is_last4 && has_expiry).then(|| CardSummary {
        brand: code(&card.brand).unwrap_or_else(|| "unknown".to_owned()),
        holder_name: card.holder_name.as_deref().and_then(text),
        ..card
    })
}

/// Returns the gateway's id unchanged, because a part of it would name something else, or an empty text if it cannot be stored.
fn id(id: String, of: &'static str) -> String {
    let is_storable = id.chars().count() <= MAX_ID_CHARS && !id.chars().any(char::is_control);
    if is_storable {
        return id;
    }
    tracing::error!(
        of,
        bytes = id.len(),
        "the gateway's id cannot be stored, and is left out"
    );
    String::new()
}

/// Sanitizes a code. Returns `None` if nothing is left of it, or if it is longer than any code is.
fn code(code: &str) -> Option<String> {
    let is_short = code.chars().nth(MAX_CODE_CHARS).is_none();
    text(code).filter(|_| is_short)
}

/// Sanitizes a text for people and cuts it at 200 characters. Returns `None` if a card's number may be in it, or if nothing is
/// left.
fn text(text: &str) -> Option<String> {
    let visible = text.chars().filter(|symbol| !symbol.is_control());
    let examined: String = visible
        .take(MAX_TEXT_CHARS + LONGEST_NUMBER_CHARS)
        .collect();
    if Pan::may_be_in(&examined) {
        return None;
    }
    let kept: String = examined.chars().take(MAX_TEXT_CHARS).collect();
    (!kept.trim().is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::RefundProgress;

    const NUMBER: &str = "4242 4242 4242 4242";

    #[test]
    fn text_is_bounded_and_has_neither_control_characters_nor_a_number() {
        assert_eq!(text("a\0b\r\nc").as_deref(), Some("abc"));
        let kept = text(&"é".repeat(10 * 1024 * 1024)).expect("text");
        assert_eq!(kept.chars().count(), MAX_TEXT_CHARS);
        let at_the_end = format!("{}{NUMBER}", "x".repeat(MAX_TEXT_CHARS - 1));
        for none in ["", "\0", " \n", NUMBER, at_the_end.as_str()] {
            assert_eq!(text(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_decline_keeps_what_can_be_stored() {
        let odd = Decline {
            code: "\0".to_owned(),
            message: NUMBER.to_owned(),
            advice: Advice {
                advice_code: Some("try_again_later".to_owned()),
                network_advice_code: Some("x".repeat(65)),
                network_decline_code: Some("\u{1b}".to_owned()),
            },
        };
        let stored = odd.sanitized();
        assert_eq!(
            (stored.code.as_str(), stored.message.as_str()),
            (PLAIN_CODE, PLAIN_MESSAGE)
        );
        let expected = Advice {
            advice_code: Some("try_again_later".to_owned()),
            ..Advice::default()
        };
        assert_eq!(stored.advice, expected);
        let good = Decline::new("lost_card", "The card was declined");
        assert_eq!(good.clone().sanitized(), good);
    }

    #[test]
    fn a_card_shows_four_digits_or_nothing() {
        let good = CardSummary {
            brand: "visa".to_owned(),
            last4: "4242".to_owned(),
            expiry_month: 12,
            expiry_year: 2031,
            holder_name: Some("Zoë".to_owned()),
        };
        assert_eq!(card(good.clone()), Some(good.clone()));
        let with = |change: fn(&mut CardSummary)| {
            let mut changed = good.clone();
            change(&mut changed);
            card(changed)
        };
        assert_eq!(with(|card| card.last4 = "4".repeat(40)), None);
        assert_eq!(with(|card| card.last4 = "42\u{0}2".to_owned()), None);
        assert_eq!(with(|card| card.expiry_month = 13), None);
        assert_eq!(with(|card| card.expiry_year = u16::MAX), None);
        let brand = with(|card| card.brand = "\0".to_owned()).map(|card| card.brand);
        assert_eq!(brand.as_deref(), Some("unknown"));
        let name = with(|card| card.holder_name = Some(NUMBER.to_owned()));
        assert_eq!(name.expect("a card").holder_name, None);
    }

    #[test]
    fn an_id_is_whole_or_not_there() {
        let of = |id: &str| {
            let refunded = Refunded {
                gateway_refund_id: id.to_owned(),
                progress: RefundProgress::Pending,
            };
            refunded.sanitized().gateway_refund_id
        };
        assert_eq!(of("re_1"), "re_1");
        let longest = "é".repeat(MAX_ID_CHARS);
        assert_eq!(of(&longest), longest);
        for bad in ["re\0", "re\n", &"x".repeat(MAX_ID_CHARS + 1)] {
            assert_eq!(of(bad), "");
        }
    }
}
