//! Stripe's errors, and which of them are a decline in which words.

use serde::Deserialize;

use crate::gateway::Decline;

/// `{"error": {…}}`. See <https://docs.stripe.com/api/errors>.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: StripeError,
}

/// An error, of a request or, as `last_payment_error`, of an intent.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct StripeError {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) code: Option<String>,
    pub(super) decline_code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) param: Option<String>,
}

/// Longer than any of Stripe's codes, and short enough for a column.
const MAX_CODE_CHARS: usize = 64;
const MAX_MESSAGE_CHARS: usize = 200;

/// The fewest digits in a row that could be a card's number (ISO/IEC 7812-1).
const MIN_PAN_DIGITS: usize = 12;

const CARD_DECLINED: &str = "The card was declined";

impl StripeError {
    /// The decline that a 402 is.
    pub(super) fn card_decline(&self) -> Decline {
        let code = self.word().unwrap_or("generic_decline");
        let message = own_words(code)
            .map(str::to_owned)
            .or_else(|| self.message.as_deref().and_then(showable))
            .unwrap_or_else(|| CARD_DECLINED.to_owned());
        Decline::new(code, message)
    }

    /// The decline that a request is which Stripe will never carry out. Its own message is written for whoever runs this
    /// service, not for its clients.
    pub(super) fn refusal(&self) -> Decline {
        let code = self.word().unwrap_or("invalid_request");
        let message = match (code, self.param.as_deref()) {
            ("resource_missing", Some("payment_method")) => "No such payment method",
            _ => own_words(code).unwrap_or("The gateway refused the request"),
        };
        Decline::new(code, message)
    }

    /// The most telling code.
    fn word(&self) -> Option<&str> {
        [&self.decline_code, &self.code]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .find(|code| is_code(code))
    }
}

/// The customer would have to authenticate, and there is nobody to ask.
pub(super) fn authentication_required() -> Decline {
    of_code("authentication_required")
}

/// A code of this adapter's own choice.
pub(super) fn of_code(code: &str) -> Decline {
    Decline::new(code, own_words(code).unwrap_or(CARD_DECLINED))
}

/// What people are told whichever gateway it was. Of a lost or stolen card no more than Stripe lets them know.
fn own_words(code: &str) -> Option<&'static str> {
    Some(match code {
        "generic_decline" | "card_declined" | "lost_card" | "stolen_card" | "pickup_card"
        | "fraudulent" => CARD_DECLINED,
        "insufficient_funds" => "Insufficient funds",
        "expired_card" => "The card has expired",
        "incorrect_cvc" | "invalid_cvc" => "The card's security code is incorrect",
        "processing_error" => "An error occurred while processing the card",
        "authentication_required" => "The card needs its owner's authentication",
        "canceled" => "The charge was canceled at the gateway",
        "payment_intent_unexpected_state" => {
            "The gateway has the payment in a state that does not allow it"
        }
        "charge_already_refunded" => "The gateway has refunded the payment already",
        "amount_too_small" => "The amount is smaller than the gateway takes",
        "amount_too_large" => "The amount is larger than the gateway takes",
        "refund_failed" => "The refund failed at the gateway",
        _ => return None,
    })
}

/// A code is stored and shown: it must look like one.
pub(super) fn is_code(text: &str) -> bool {
    (1..=MAX_CODE_CHARS).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A message, unless a card's number could be in it.
fn showable(message: &str) -> Option<String> {
    let mut digits = 0_usize;
    for symbol in message.chars() {
        match symbol {
            '0'..='9' => digits += 1,
            ' ' | '-' => {}
            _ => digits = 0,
        }
        if digits >= MIN_PAN_DIGITS {
            return None;
        }
    }
    let shown: String = message
        .chars()
        .filter(|symbol| !symbol.is_control())
        .take(MAX_MESSAGE_CHARS)
        .collect();
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> StripeError {
        serde_json::from_str(json).expect(json)
    }

    fn card(json: &str) -> (String, String) {
        let Decline { code, message, .. } = error(json).card_decline();
        (code, message)
    }

    #[test]
    fn a_decline_has_the_most_telling_code_and_our_words() {
        let rows = [
            (
                r#"{"code":"card_declined","decline_code":"insufficient_funds","message":"Your card has insufficient funds."}"#,
                ("insufficient_funds", "Insufficient funds"),
            ),
            (
                r#"{"code":"card_declined","decline_code":"lost_card","message":"Your card was declined."}"#,
                ("lost_card", "The card was declined"),
            ),
            (
                r#"{"code":"expired_card","message":"Your card has expired."}"#,
                ("expired_card", "The card has expired"),
            ),
            (
                r#"{"code":"card_declined","decline_code":"try_again_later","message":"Try again later."}"#,
                ("try_again_later", "Try again later."),
            ),
            ("{}", ("generic_decline", "The card was declined")),
            (
                r#"{"code":"no code at all!"}"#,
                ("generic_decline", "The card was declined"),
            ),
        ];
        for (json, (code, message)) in rows {
            assert_eq!(card(json), (code.to_owned(), message.to_owned()), "{json}");
        }
    }

    #[test]
    fn a_refusal_keeps_stripes_message_to_itself() {
        let rows = [
            (
                r#"{"code":"resource_missing","param":"payment_method","message":"No such PaymentMethod: 'x'"}"#,
                ("resource_missing", "No such payment method"),
            ),
            (
                r#"{"message":"Your account is not set up."}"#,
                ("invalid_request", "The gateway refused the request"),
            ),
            (
                r#"{"code":"url_invalid","message":"secret"}"#,
                ("url_invalid", "The gateway refused the request"),
            ),
        ];
        for (json, (code, message)) in rows {
            let refusal = error(json).refusal();
            assert_eq!(
                (refusal.code.as_str(), refusal.message.as_str()),
                (code, message)
            );
        }
    }

    #[test]
    fn no_card_number_is_shown() {
        for number in ["4242424242424242", "4242 4242 4242 4242", "4242-4242-4242"] {
            let json = format!(r#"{{"code":"odd","message":"Bad number {number}."}}"#);
            assert_eq!(card(&json).1, "The card was declined", "{number}");
        }
        let shown = card(r#"{"code":"odd","message":"After 12345678901 tries."}"#);
        assert_eq!(shown.1, "After 12345678901 tries.");
    }
}
