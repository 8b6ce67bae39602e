//! What an attempt's end means: the one table from which every failure gets its first word.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::api::{Answer, Attempt};
use super::decline::{ErrorBody, StripeError, is_code};
use crate::gateway::Decline;

/// What an attempt's end means. The reasons are for the log.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict<O> {
    /// Done, with the object that Stripe answered.
    Answered(O),
    /// A definite no, whatever earlier attempts came to: Stripe looks at the key before it looks at the request.
    Refused(Decline),
    /// Not carried out, and not by asking again either: the API key or the base URL is wrong.
    Barred(String),
    /// The key stands for another request. Nothing was done now; what was done under the key, only asking tells.
    KeyReused(String),
    /// To be asked again with the same key.
    Again(Again),
}

/// An attempt after which another may help.
#[derive(Debug, PartialEq)]
pub(super) struct Again {
    pub(super) cause: Cause,
    /// How long Stripe asks to wait.
    pub(super) pause: Option<Duration>,
    pub(super) reason: String,
}

/// Why an attempt has to be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing was sent.
    Unreached,
    /// Turned away before it began.
    Throttled,
    /// An earlier attempt with the same key is at work.
    InUse,
    /// Sent, perhaps, and no answer came.
    Lost,
    /// Stripe failed, after or before it was done.
    Failed,
    /// Stripe failed, and has stored the failure under the key: only asking tells what was done.
    FailedForGood,
}

impl Cause {
    /// False where it is certain that this attempt did nothing.
    pub(super) fn may_have_happened(self) -> bool {
        !matches!(self, Self::Unreached | Self::Throttled)
    }
}

/// Judges an attempt by itself.
pub(super) fn classify<O: DeserializeOwned>(attempt: Attempt) -> Verdict<O> {
    match attempt {
        Attempt::Unreached(reason) => again(Cause::Unreached, None, reason),
        Attempt::Lost(reason) => again(Cause::Lost, None, reason),
        Attempt::Answered(answer) if (200..300).contains(&answer.status) => {
            match serde_json::from_slice(&answer.body) {
                Ok(object) => Verdict::Answered(object),
                // Its text could repeat the body.
                Err(_) => again(
                    Cause::Lost,
                    None,
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
    let reason = describe(answer, &error);
    let code = error.code.as_deref().unwrap_or_default();
    let cause = match (answer.status, error.kind.as_deref()) {
        (401 | 403, _) => return Verdict::Barred(reason),
        (400, Some("idempotency_error")) => return Verdict::KeyReused(reason),
        // Stripe gives up on a lock after it has begun.
        (429, _) if code == "lock_timeout" => Cause::Failed,
        (429, _) => Cause::Throttled,
        (409, _) => Cause::InUse,
        (402, Some(_)) => return Verdict::Refused(error.card_decline()),
        (404, Some("invalid_request_error")) if code != "resource_missing" => {
            return Verdict::Barred(reason);
        }
        (400..=499, Some("invalid_request_error")) => return Verdict::Refused(error.refusal()),
        (400..=499, Some("card_error")) => return Verdict::Refused(error.card_decline()),
        (500..=599, _) if answer.replayed => Cause::FailedForGood,
        // Also what is not of Stripe's making: a proxy's pages, redirects.
        _ => Cause::Failed,
    };
    again(cause, answer.retry_after, reason)
}

fn again<O>(cause: Cause, pause: Option<Duration>, reason: String) -> Verdict<O> {
    Verdict::Again(Again {
        cause,
        pause,
        reason,
    })
}

/// `402 card_error card_declined (req_123)`. Messages stay out of it: a wrong key's repeats parts of the key.
fn describe(answer: &Answer, error: &StripeError) -> String {
    let words = [&error.kind, &error.code, &error.param];
    let mut text = answer.status.to_string();
    for word in words.into_iter().flatten().filter(|word| is_code(word)) {
        text = text + " " + word;
    }
    match answer.request_id.as_deref().filter(|id| is_code(id)) {
        Some(id) => format!("{text} ({id})"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Object {
        id: String,
    }

    /// The verdict in a word or two.
    fn judged(attempt: Attempt) -> String {
        match classify::<Object>(attempt) {
            Verdict::Answered(object) => format!("answered {}", object.id),
            Verdict::Refused(decline) => format!("refused {}", decline.code),
            Verdict::Barred(_) => "barred".to_owned(),
            Verdict::KeyReused(_) => "key reused".to_owned(),
            Verdict::Again(again) => {
                let certain = match again.cause.may_have_happened() {
                    true => "may have happened",
                    false => "nothing happened",
                };
                format!("again: {:?}, {certain}", again.cause)
            }
        }
    }

    fn answer(status: u16, replayed: bool, body: &str) -> Attempt {
        Attempt::Answered(Answer {
            status,
            replayed,
            body: body.into(),
            ..Answer::default()
        })
    }

    fn error(kind: &str, code: &str) -> String {
        format!(r#"{{"error":{{"type":"{kind}","code":"{code}","message":"m"}}}}"#)
    }

    #[test]
    fn what_was_not_sent_did_nothing_and_what_was_lost_may_have() {
        assert_eq!(
            judged(Attempt::Unreached("r".into())),
            "again: Unreached, nothing happened"
        );
        assert_eq!(
            judged(Attempt::Lost("r".into())),
            "again: Lost, may have happened"
        );
    }

    #[test]
    fn each_answer_has_its_verdict() {
        let invalid = "invalid_request_error";
        let coded = |code| error(invalid, code);
        let declined =
            r#"{"error":{"type":"card_error","code":"card_declined","decline_code":"lost_card"}}"#;
        let rows = [
            (200, r#"{"id":"pi_1"}"#.to_owned(), "answered pi_1"),
            (200, "{}".to_owned(), "again: Lost, may have happened"),
            (200, "<html>".to_owned(), "again: Lost, may have happened"),
            (302, String::new(), "again: Failed, may have happened"),
            (400, coded("parameter_unknown"), "refused parameter_unknown"),
            (
                400,
                r#"{"error":{"type":"invalid_request_error"}}"#.to_owned(),
                "refused invalid_request",
            ),
            (400, error("idempotency_error", ""), "key reused"),
            (400, "<html>".to_owned(), "again: Failed, may have happened"),
            (
                400,
                error("api_error", ""),
                "again: Failed, may have happened",
            ),
            (401, coded(""), "barred"),
            (401, "<html>".to_owned(), "barred"),
            (402, declined.to_owned(), "refused lost_card"),
            (
                402,
                error("card_error", "expired_card"),
                "refused expired_card",
            ),
            (402, "<html>".to_owned(), "again: Failed, may have happened"),
            (403, coded("x"), "barred"),
            (404, coded("resource_missing"), "refused resource_missing"),
            (404, coded(""), "barred"),
            (404, "<html>".to_owned(), "again: Failed, may have happened"),
            (408, String::new(), "again: Failed, may have happened"),
            (
                409,
                error("idempotency_error", "idempotency_key_in_use"),
                "again: InUse, may have happened",
            ),
            (
                429,
                coded("rate_limit"),
                "again: Throttled, nothing happened",
            ),
            (429, String::new(), "again: Throttled, nothing happened"),
            (
                429,
                coded("lock_timeout"),
                "again: Failed, may have happened",
            ),
            (
                500,
                error("api_error", ""),
                "again: Failed, may have happened",
            ),
            (503, "<html>".to_owned(), "again: Failed, may have happened"),
        ];
        for (status, body, expected) in rows {
            assert_eq!(
                judged(answer(status, false, &body)),
                expected,
                "{status} {body}"
            );
        }
    }

    #[test]
    fn only_a_failure_is_worse_for_being_replayed() {
        let declined = error("card_error", "expired_card");
        assert_eq!(judged(answer(402, true, &declined)), "refused expired_card");
        assert_eq!(
            judged(answer(200, true, r#"{"id":"pi_1"}"#)),
            "answered pi_1"
        );
        assert_eq!(
            judged(answer(500, true, "")),
            "again: FailedForGood, may have happened"
        );
    }

    #[test]
    fn a_throttled_request_is_told_when_to_come_back() {
        let pause = Some(Duration::from_secs(1));
        let attempt = Attempt::Answered(Answer {
            status: 429,
            retry_after: pause,
            ..Answer::default()
        });
        match classify::<Object>(attempt) {
            Verdict::Again(again) => assert_eq!(again.pause, pause),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reason_has_codes_and_the_requests_name_but_no_message() {
        let answer = |body: &str, id: &str| Answer {
            status: 401,
            request_id: Some(id.to_owned()),
            body: body.into(),
            ..Answer::default()
        };
        let reason = |answer| match classify::<Object>(Attempt::Answered(answer)) {
            Verdict::Barred(reason) => reason,
            other => panic!("{other:?}"),
        };
        let body = error("invalid_request_error", "api_key_expired");
        assert_eq!(
            reason(answer(&body, "req_1")),
            "401 invalid_request_error api_key_expired (req_1)"
        );
        assert_eq!(reason(answer("{}", "a b\n")), "401");
    }
}
