//! What the result of an attempt means: the one table that gives every failure its kind.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::api::{Answer, Attempt};
use super::decline::{Declined, ErrorBody, StripeError};
use super::text;
use crate::gateway::Refusal;

/// What the result of an attempt means. The reasons are for the log and the operator.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict<O> {
    /// Done, with the object in Stripe's answer.
    Answered(O),
    /// A final decline, because of the payer's card or the object's state. It is the result of the key, including earlier attempts:
    /// Stripe checks the key before it executes a request.
    Declined(Declined),
    /// The request's content is wrong. Nothing was done now. `stored`: this is the result of the key, including earlier attempts.
    Refused { refusal: Refusal, stored: bool },
    /// This service is refused, not the payer, until an operator has fixed that. Nothing was done now.
    Misconfigured(String),
    /// The key was used for another request. Nothing was done now. What was done under the key must be asked for.
    KeyReused(String),
    /// Repeat it with the same key.
    Again(Again),
}

/// An attempt that may be repeated.
#[derive(Debug, PartialEq)]
pub(super) struct Again {
    pub(super) cause: Cause,
    /// How long Stripe asks to wait.
    pub(super) pause: Option<Duration>,
    /// Stripe says that repeating does not help.
    pub(super) is_last: bool,
    pub(super) reason: String,
}

/// Why an attempt has to be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing was sent.
    Unreached,
    /// It was rejected before it began.
    Throttled,
    /// An earlier attempt with the same key is at work, or another request on the same object.
    InUse,
    /// It may have been sent, and no answer came.
    Lost,
    /// Stripe failed, after or before it was done.
    Failed,
    /// Stripe failed, and has stored the failure under the key. What was done must be asked for.
    FailedForGood,
}

impl Cause {
    /// Whether this attempt may have done something.
    pub(super) fn may_have_happened(self) -> bool {
        !matches!(self, Self::Unreached | Self::Throttled)
    }
}

/// The meaning of Stripe's codes of an `invalid_request_error`.
enum Kind {
    Refused,
    Conflict,
    Misconfigured,
}

/// The request's content is wrong. The parameter is the field's name in this service's API, for codes with which Stripe may leave
/// it out.
const REFUSED: [(&str, Option<&str>); 27] = [
    ("amount_too_large", Some("amount")),
    ("amount_too_small", Some("amount")),
    ("charge_exceeds_source_limit", Some("amount")),
    ("charge_exceeds_transaction_limit", Some("amount")),
    ("email_invalid", None),
    ("expired_payment_method", Some("paymentMethod.token")),
    ("incorrect_address", None),
    ("incorrect_number", Some("paymentMethod.details.cardNumber")),
    ("invalid_card_type", Some("paymentMethod")),
    ("invalid_characters", None),
    ("invalid_charge_amount", Some("amount")),
    ("invalid_cvc", Some("paymentMethod.details.cvv")),
    (
        "invalid_expiry_month",
        Some("paymentMethod.details.expiryMonth"),
    ),
    (
        "invalid_expiry_year",
        Some("paymentMethod.details.expiryYear"),
    ),
    ("invalid_number", Some("paymentMethod.details.cardNumber")),
    ("invalid_source_usage", Some("paymentMethod.token")),
    (
        "payment_intent_incompatible_payment_method",
        Some("paymentMethod.token"),
    ),
    (
        "payment_intent_mandate_invalid",
        Some("paymentMethod.token"),
    ),
    ("payment_method_currency_mismatch", Some("currency")),
    ("payment_method_invalid_parameter", Some("paymentMethod")),
    (
        "payment_method_invalid_parameter_testmode",
        Some("paymentMethod"),
    ),
    ("payment_method_not_available", Some("paymentMethod.token")),
    ("payment_method_restricted", Some("paymentMethod.token")),
    (
        "payment_method_unexpected_state",
        Some("paymentMethod.token"),
    ),
    ("postal_code_invalid", None),
    ("token_already_used", Some("paymentMethod.token")),
    ("token_in_use", Some("paymentMethod.token")),
];

/// The gateway's object is in a state that does not allow the request: a decline.
const CONFLICTS: [&str; 14] = [
    "capture_charge_authorization_expired",
    "capture_unauthorized_payment",
    "charge_already_captured",
    "charge_already_refunded",
    "charge_disputed",
    "charge_expired_for_capture",
    "charge_not_refundable",
    "intent_invalid_state",
    "payment_intent_authentication_failure",
    "payment_intent_payment_attempt_expired",
    "payment_intent_payment_attempt_failed",
    "payment_intent_unexpected_state",
    "refund_disputed_payment",
    "status_transition_invalid",
];

/// An operator has to fix it, whatever parameter Stripe names.
const MISCONFIGURED: [&str; 24] = [
    "account_closed",
    "account_country_invalid_address",
    "account_error_country_change_requires_additional_steps",
    "account_invalid",
    "api_key_expired",
    "application_fees_not_allowed",
    "balance_insufficient",
    "capability_not_active",
    "country_unsupported",
    "livemode_mismatch",
    "no_account",
    "not_allowed_on_standard_account",
    "parameter_missing",
    "parameter_unknown",
    "parameters_exclusive",
    "payment_method_configuration_failures",
    "payment_method_unactivated",
    "payment_method_unsupported_type",
    "platform_account_required",
    "platform_api_key_expired",
    "secret_key_required",
    "testmode_charges_only",
    "tls_version_unsupported",
    "url_invalid",
];

/// Stripe's parameters that carry what the client sent, and the client's own names of them.
const CONTENT: [(&str, &str); 17] = [
    ("amount", "amount"),
    ("amount_to_capture", "amount"),
    (
        "billing_details[name]",
        "paymentMethod.details.cardHolderName",
    ),
    ("card[cvc]", "paymentMethod.details.cvv"),
    ("card[exp_month]", "paymentMethod.details.expiryMonth"),
    ("card[exp_year]", "paymentMethod.details.expiryYear"),
    ("card[number]", "paymentMethod.details.cardNumber"),
    ("currency", "currency"),
    ("customer", "customer.gatewayCustomerId"),
    ("cvc", "paymentMethod.details.cvv"),
    ("description", "description"),
    ("exp_month", "paymentMethod.details.expiryMonth"),
    ("exp_year", "paymentMethod.details.expiryYear"),
    ("number", "paymentMethod.details.cardNumber"),
    ("off_session", "offSession"),
    ("payment_method", "paymentMethod.token"),
    ("return_url", "returnUrl"),
];

fn clients_param(param: Option<&str>) -> Option<&'static str> {
    let (_, clients) = CONTENT
        .iter()
        .find(|(stripes, _)| Some(*stripes) == param)?;
    Some(clients)
}

/// The verdict on a single attempt.
pub(super) fn classify<O: DeserializeOwned>(attempt: Attempt) -> Verdict<O> {
    match attempt {
        Attempt::Unreached(reason) => again(Cause::Unreached, reason),
        Attempt::Lost(reason) => again(Cause::Lost, reason),
        Attempt::Answered(answer) if (200..300).contains(&answer.status) => {
            match serde_json::from_slice(&answer.body) {
                Ok(object) => Verdict::Answered(object),
                // Its text could repeat the body.
                Err(_) => again(
                    Cause::Lost,
                    format!("{} with an unreadable body", answer.status),
                ),
            }
        }
        Attempt::Answered(answer) => classify_error(&answer),
    }
}

fn classify_error<O>(answer: &Answer) -> Verdict<O> {
    let body: Option<ErrorBody> = serde_json::from_slice(&answer.body).ok();
    let error = body.map(|body| body.error).unwrap_or_default();
    let code = error.code.as_deref().unwrap_or_default();
    let cause = match (answer.status, error.kind.as_deref()) {
        (401 | 403, _) => return misconfigured(answer, &error),
        // Stripe may give up on a lock after it has begun to execute.
        (409 | 429, _) if code == "lock_timeout" => Cause::Failed,
        (429, _) => Cause::Throttled,
        (409, _) => Cause::InUse,
        (400..=499, Some("idempotency_error")) if code == "idempotency_key_in_use" => Cause::InUse,
        (400, Some("idempotency_error")) => return Verdict::KeyReused(describe(answer, &error)),
        (500..=599, _) if answer.replayed => Cause::FailedForGood,
        (400..=499, _) if answer.should_retry == Some(true) => Cause::Failed,
        (400..=499, Some("card_error")) => {
            return Verdict::Declined(Declined {
                decline: error.card_decline(),
                intent_id: error.intent_id(),
            });
        }
        (400..=499, Some("invalid_request_error")) => return invalid_request(answer, &error),
        // This includes answers that are not Stripe's: a proxy's pages, redirects.
        _ => Cause::Failed,
    };
    Verdict::Again(Again {
        cause,
        pause: answer.retry_after,
        // A failure is repeated once more, which returns the answer that was stored under the key.
        is_last: answer.should_retry == Some(false) && (400..=499).contains(&answer.status),
        reason: describe(answer, &error),
    })
}

/// The verdict on an `invalid_request_error`, by its code or else by the parameter that it names.
fn invalid_request<O>(answer: &Answer, error: &StripeError) -> Verdict<O> {
    let param = clients_param(error.param.as_deref());
    let code = error.code.as_deref().unwrap_or_default();
    let by_code = REFUSED.iter().find(|(refused, _)| *refused == code);
    let kind = match by_code {
        Some(_) => Kind::Refused,
        None if CONFLICTS.contains(&code) => Kind::Conflict,
        None if MISCONFIGURED.contains(&code) => Kind::Misconfigured,
        // There is no such address: the base URL is wrong.
        None if answer.status == 404 && code != "resource_missing" => Kind::Misconfigured,
        None if param.is_some() => Kind::Refused,
        None => Kind::Misconfigured,
    };
    match kind {
        Kind::Misconfigured => misconfigured(answer, error),
        Kind::Refused => Verdict::Refused {
            refusal: error.refusal(param.or_else(|| by_code.and_then(|(_, param)| *param))),
            stored: answer.replayed,
        },
        Kind::Conflict => Verdict::Declined(Declined {
            decline: error.conflict(),
            intent_id: None,
        }),
    }
}

fn misconfigured<O>(answer: &Answer, error: &StripeError) -> Verdict<O> {
    let mut reason = describe(answer, error);
    // A wrong key's message repeats parts of the key.
    let message = error.message.as_deref().filter(|_| answer.status != 401);
    if let Some(message) = message.and_then(text::operators_message) {
        reason = reason + ": " + &message;
    }
    Verdict::Misconfigured(reason)
}

fn again<O>(cause: Cause, reason: String) -> Verdict<O> {
    Verdict::Again(Again {
        cause,
        pause: None,
        is_last: false,
        reason,
    })
}

/// `402 card_error card_declined (req_123)`.
fn describe(answer: &Answer, error: &StripeError) -> String {
    let words = [&error.kind, &error.code];
    let mut text = answer.status.to_string();
    for word in words
        .into_iter()
        .flatten()
        .filter(|word| text::is_code(word))
    {
        text = text + " " + word;
    }
    if let Some(param) = error.param.as_deref().filter(|param| is_param(param)) {
        text = text + " " + param;
    }
    match answer.request_id.as_deref().filter(|id| text::is_code(id)) {
        Some(id) => format!("{text} ({id})"),
        None => text,
    }
}

/// `automatic_payment_methods[enabled]`
fn is_param(text: &str) -> bool {
    text::is_code(&text.replace(['[', ']'], ""))
}

#[cfg(test)]
mod tests;
