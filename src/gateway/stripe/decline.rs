//! Stripe's errors, in texts that may be stored and shown.

use serde::Deserialize;

use super::text;
use crate::gateway::{Advice, Decline, Refusal};

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
    pub(super) advice_code: Option<String>,
    pub(super) network_advice_code: Option<String>,
    pub(super) network_decline_code: Option<String>,
    pub(super) payment_intent: Option<NamedIntent>,
}

/// The intent that an error is about.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NamedIntent {
    id: Option<String>,
}

/// A decline, and the intent that it left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declined {
    pub(super) decline: Decline,
    pub(super) intent_id: Option<String>,
}

const CARD_DECLINED: &str = "The card was declined";
const REFUSED: &str = "The gateway refused the request";

impl StripeError {
    /// The payer's card was declined.
    pub(super) fn card_decline(&self) -> Decline {
        let code = self.word().unwrap_or("generic_decline");
        let message = own_words(code)
            .map(str::to_owned)
            .or_else(|| self.message.as_deref().and_then(text::message))
            .unwrap_or_else(|| CARD_DECLINED.to_owned());
        let advice = Advice {
            advice_code: text::code(self.advice_code.as_deref()),
            network_advice_code: text::code(self.network_advice_code.as_deref()),
            network_decline_code: text::code(self.network_decline_code.as_deref()),
        };
        Decline {
            advice,
            ..Decline::new(code, message)
        }
    }

    /// The gateway's object no longer allows the request. Stripe's own message is written for the operator of this service, not for
    /// its clients.
    pub(super) fn conflict(&self) -> Decline {
        let code = self.word().unwrap_or("payment_intent_unexpected_state");
        Decline::new(code, own_words(code).unwrap_or(REFUSED))
    }

    /// The request's content is wrong. `param` is the field's name in this service's API.
    pub(super) fn refusal(&self, param: Option<&str>) -> Refusal {
        let code = self.word().unwrap_or("invalid_request");
        let message = match (code, param) {
            ("resource_missing", Some("paymentMethod.token")) => "No such payment method",
            ("resource_missing", Some("customer.gatewayCustomerId")) => "No such customer",
            (_, Some("currency")) => "The gateway does not take this currency",
            _ => own_words(code).unwrap_or(REFUSED),
        };
        Refusal {
            code: code.to_owned(),
            message: message.to_owned(),
            param: param.map(str::to_owned),
        }
    }

    /// The intent that the error is about, if it has the id of one.
    pub(super) fn intent_id(&self) -> Option<String> {
        let id = self.payment_intent.as_ref()?.id.as_deref()?;
        text::is_id(id, "pi_").then(|| id.to_owned())
    }

    /// The most specific code.
    fn word(&self) -> Option<&str> {
        [&self.decline_code, &self.code]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .find(|code| text::is_code(code))
    }
}

/// The decline of a payer who would have to authenticate and is not present.
pub(super) fn authentication_required() -> Decline {
    of_code("authentication_required")
}

/// A code of this adapter's own choice, or of a charge.
pub(super) fn of_code(code: &str) -> Decline {
    Decline::new(code, own_words(code).unwrap_or(CARD_DECLINED))
}

/// The message for people, the same for every gateway. For a lost or stolen card it says no more than Stripe's does.
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
        "charge_already_captured" => "The gateway has captured the payment already",
        "charge_already_refunded" => "The gateway has refunded the payment already",
        "charge_disputed" | "refund_disputed_payment" => "The payment is disputed at the gateway",
        "charge_expired_for_capture" | "capture_charge_authorization_expired" => {
            "The hold has expired at the gateway"
        }
        "amount_too_small" => "The amount is smaller than the gateway takes",
        "amount_too_large" => "The amount is larger than the gateway takes",
        "invalid_charge_amount" => "The gateway has no such amount in this currency",
        "token_already_used" | "token_in_use" => "The token has been used already",
        "payment_method_currency_mismatch" => "The payment method does not take this currency",
        "refund_failed" => "The refund failed at the gateway",
        _ => return None,
    })
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
            (
                r#"{"code":"odd","message":"Bad number 4242 4242 4242 4242."}"#,
                ("odd", "The card was declined"),
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
    fn a_decline_carries_the_advice_of_stripe_and_the_network() {
        let decline = error(
            r#"{"code":"card_declined","advice_code":"do_not_try_again","network_advice_code":"01","network_decline_code":"4\u00001"}"#,
        )
        .card_decline();
        let expected = Advice {
            advice_code: Some("do_not_try_again".to_owned()),
            network_advice_code: Some("01".to_owned()),
            // A text that is not a code is not stored.
            network_decline_code: None,
        };
        assert_eq!(decline.advice, expected);
    }

    #[test]
    fn a_refusal_keeps_stripes_message_to_itself() {
        let rows = [
            (
                r#"{"code":"resource_missing","message":"No such PaymentMethod: 'x'"}"#,
                Some("paymentMethod.token"),
                ("resource_missing", "No such payment method"),
            ),
            (
                r#"{"message":"Refund amount (9) is greater than …"}"#,
                Some("amount"),
                ("invalid_request", "The gateway refused the request"),
            ),
            (
                r#"{"code":"amount_too_small","message":"secret"}"#,
                Some("amount"),
                (
                    "amount_too_small",
                    "The amount is smaller than the gateway takes",
                ),
            ),
        ];
        for (json, param, (code, message)) in rows {
            let refusal = error(json).refusal(param);
            assert_eq!(
                (refusal.code.as_str(), refusal.message.as_str()),
                (code, message)
            );
            assert_eq!(refusal.param.as_deref(), param);
        }
    }
}
