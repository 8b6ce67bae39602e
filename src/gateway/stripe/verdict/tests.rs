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
        Verdict::Declined(declined) => format!("declined {}", declined.decline.code),
        Verdict::Refused { refusal, .. } => {
            let param = refusal.param.as_deref().unwrap_or("-");
            format!("refused {} {param}", refusal.code)
        }
        Verdict::Misconfigured(_) => "misconfigured".to_owned(),
        Verdict::KeyReused(_) => "key reused".to_owned(),
        Verdict::Again(again) => {
            let certain = match again.cause.may_have_happened() {
                true => "may have happened",
                false => "nothing happened",
            };
            let last = if again.is_last { ", the last" } else { "" };
            format!("again: {:?}, {certain}{last}", again.cause)
        }
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        body: body.into(),
        ..Answer::default()
    }
}

fn error(kind: &str, code: &str, param: &str) -> String {
    format!(r#"{{"error":{{"type":"{kind}","code":"{code}","param":"{param}","message":"m"}}}}"#)
}

fn assert_rows(rows: &[(u16, String, &str)]) {
    for (status, body, expected) in rows {
        let word = judged(Attempt::Answered(answer(*status, body)));
        assert_eq!(word, *expected, "{status} {body}");
    }
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
fn done_and_declined() {
    let declined =
        r#"{"error":{"type":"card_error","code":"card_declined","decline_code":"lost_card"}}"#;
    assert_rows(&[
        (200, r#"{"id":"pi_1"}"#.into(), "answered pi_1"),
        (200, "{}".into(), "again: Lost, may have happened"),
        (200, "<html>".into(), "again: Lost, may have happened"),
        (402, declined.into(), "declined lost_card"),
        (
            402,
            error("card_error", "expired_card", ""),
            "declined expired_card",
        ),
        (
            400,
            error("card_error", "incorrect_number", "number"),
            "declined incorrect_number",
        ),
    ]);
}

#[test]
fn the_objects_state_is_a_final_no() {
    let rows = CONFLICTS.map(|code| (400, error("invalid_request_error", code, "")));
    for (status, body) in rows {
        let word = judged(Attempt::Answered(answer(status, &body)));
        assert!(word.starts_with("declined "), "{body}: {word}");
    }
}

#[test]
fn the_requests_content_is_refused() {
    let invalid = |code, param| error("invalid_request_error", code, param);
    assert_rows(&[
        (
            400,
            invalid("amount_too_small", "amount"),
            "refused amount_too_small amount",
        ),
        (
            400,
            invalid("amount_too_large", "amount_to_capture"),
            "refused amount_too_large amount",
        ),
        (
            400,
            invalid("amount_too_large", ""),
            "refused amount_too_large amount",
        ),
        (
            400,
            invalid("invalid_charge_amount", "amount"),
            "refused invalid_charge_amount amount",
        ),
        (
            400,
            invalid("parameter_invalid_integer", "amount"),
            "refused parameter_invalid_integer amount",
        ),
        (400, invalid("", "amount"), "refused invalid_request amount"),
        (
            400,
            invalid("", "currency"),
            "refused invalid_request currency",
        ),
        (
            400,
            invalid("resource_missing", "payment_method"),
            "refused resource_missing paymentMethod.token",
        ),
        (
            404,
            invalid("resource_missing", "payment_method"),
            "refused resource_missing paymentMethod.token",
        ),
        (
            400,
            invalid("resource_missing", "customer"),
            "refused resource_missing customer.gatewayCustomerId",
        ),
        (
            400,
            invalid("token_already_used", ""),
            "refused token_already_used paymentMethod.token",
        ),
        (
            400,
            invalid("payment_method_currency_mismatch", ""),
            "refused payment_method_currency_mismatch currency",
        ),
        (
            400,
            invalid("unheard_of", "description"),
            "refused unheard_of description",
        ),
        (
            400,
            invalid("unheard_of", "card[exp_year]"),
            "refused unheard_of paymentMethod.details.expiryYear",
        ),
        (
            402,
            invalid("", "off_session"),
            "refused invalid_request offSession",
        ),
    ]);
    for (code, param) in REFUSED {
        let expected = format!("refused {code} {}", param.unwrap_or("-"));
        let body = invalid(code, "");
        assert_eq!(judged(Attempt::Answered(answer(400, &body))), expected);
    }
}

#[test]
fn what_an_operator_has_to_put_right_is_no_decline() {
    let invalid = |code, param| error("invalid_request_error", code, param);
    let raw_card = r#"{"error":{"type":"invalid_request_error","message":"Sending credit card numbers directly …"}}"#;
    let version =
        r#"{"error":{"type":"invalid_request_error","message":"Invalid Stripe API version: x"}}"#;
    let word = "misconfigured";
    assert_rows(&[
        (401, invalid("", ""), word),
        (401, "<html>".into(), word),
        (403, invalid("account_invalid", ""), word),
        (403, "<html>".into(), word),
        (
            400,
            invalid("parameter_unknown", "payment_method_types[]"),
            word,
        ),
        // Also if the parameter is one of the request's content.
        (400, invalid("parameter_unknown", "amount"), word),
        (400, invalid("parameter_missing", "return_url"), word),
        (400, version.into(), word),
        (402, raw_card.into(), word),
        (400, invalid("unheard_of", ""), word),
        (400, invalid("unheard_of", "capture_method"), word),
        (404, invalid("", ""), word),
        // There is no such address, whatever parameter the answer names.
        (404, invalid("", "payment_method"), word),
        // An intent of another account, or of the other mode.
        (404, invalid("resource_missing", "intent"), word),
        (400, invalid("resource_missing", "payment_intent"), word),
    ]);
    for code in MISCONFIGURED {
        let body = invalid(code, "");
        assert_eq!(
            judged(Attempt::Answered(answer(400, &body))),
            word,
            "{code}"
        );
    }
}

#[test]
fn what_may_be_tried_again() {
    let failed = "again: Failed, may have happened";
    let in_use = "again: InUse, may have happened";
    let throttled = "again: Throttled, nothing happened";
    assert_rows(&[
        (302, String::new(), failed),
        (400, "<html>".into(), failed),
        (400, error("api_error", "", ""), failed),
        (402, "<html>".into(), failed),
        (404, "<html>".into(), failed),
        (408, String::new(), failed),
        (400, error("idempotency_error", "", ""), "key reused"),
        (
            400,
            error("idempotency_error", "idempotency_key_in_use", ""),
            in_use,
        ),
        (
            409,
            error("idempotency_error", "idempotency_key_in_use", ""),
            in_use,
        ),
        (
            409,
            error("invalid_request_error", "lock_timeout", ""),
            failed,
        ),
        (
            429,
            error("invalid_request_error", "lock_timeout", ""),
            failed,
        ),
        (
            429,
            error("invalid_request_error", "rate_limit", ""),
            throttled,
        ),
        (429, String::new(), throttled),
        (500, error("api_error", "", ""), failed),
        (503, "<html>".into(), failed),
    ]);
}

#[test]
fn stripe_says_itself_whether_to_try_again() {
    let advised = |status, should_retry, body: &str| {
        judged(Attempt::Answered(Answer {
            should_retry: Some(should_retry),
            ..answer(status, body)
        }))
    };
    let invalid = error("invalid_request_error", "unheard_of", "amount");
    let rows = [
        (400, true, "again: Failed, may have happened"),
        (400, false, "refused unheard_of amount"),
        (409, false, "again: InUse, may have happened, the last"),
        (429, false, "again: Throttled, nothing happened, the last"),
        (429, true, "again: Throttled, nothing happened"),
        (500, true, "again: Failed, may have happened"),
        // One more try returns what is stored under the key.
        (500, false, "again: Failed, may have happened"),
    ];
    for (status, should_retry, expected) in rows {
        let word = advised(status, should_retry, &invalid);
        assert_eq!(word, expected, "{status} {should_retry}");
    }
}

#[test]
fn a_replayed_failure_is_the_keys_and_a_replayed_refusal_is_certain() {
    let replayed = |status, body: &str| {
        classify::<Object>(Attempt::Answered(Answer {
            replayed: true,
            ..answer(status, body)
        }))
    };
    match replayed(500, "") {
        Verdict::Again(again) => assert_eq!(again.cause, Cause::FailedForGood),
        other => panic!("{other:?}"),
    }
    let refused = error("invalid_request_error", "amount_too_small", "amount");
    assert!(matches!(
        replayed(400, &refused),
        Verdict::Refused { stored: true, .. }
    ));
    assert!(matches!(
        classify::<Object>(Attempt::Answered(answer(400, &refused))),
        Verdict::Refused { stored: false, .. }
    ));
}

#[test]
fn a_throttled_request_is_told_when_to_come_back() {
    let pause = Some(Duration::from_secs(1));
    let attempt = Attempt::Answered(Answer {
        retry_after: pause,
        ..answer(429, "")
    });
    match classify::<Object>(attempt) {
        Verdict::Again(again) => assert_eq!(again.pause, pause),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_decline_names_the_intent_that_it_left_behind() {
    let of = |id: &str| {
        let body = format!(
            r#"{{"error":{{"type":"card_error","code":"card_declined","payment_intent":{{"id":"{id}","object":"payment_intent"}}}}}}"#
        );
        match classify::<Object>(Attempt::Answered(answer(402, &body))) {
            Verdict::Declined(declined) => declined.intent_id,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of("pi_1").as_deref(), Some("pi_1"));
    assert_eq!(of("../x"), None);
}

#[test]
fn a_reason_tells_the_operator_what_to_do_and_no_key() {
    let reason = |status, body: &str, id: &str| {
        let attempt = Attempt::Answered(Answer {
            request_id: Some(id.to_owned()),
            ..answer(status, body)
        });
        match classify::<Object>(attempt) {
            Verdict::Misconfigured(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    let key = r#"{"error":{"type":"invalid_request_error","code":"api_key_expired","message":"Expired: sk_live_x"}}"#;
    assert_eq!(
        reason(401, key, "req_1"),
        "401 invalid_request_error api_key_expired (req_1)"
    );
    assert!(!reason(403, key, "req_1").contains("sk_live"));
    assert_eq!(reason(401, "{}", "a b\n"), "401");
    let body = r#"{"error":{"type":"invalid_request_error","code":"parameter_unknown","param":"payment_method_types[]","message":"Received unknown parameter: payment_method_types[]"}}"#;
    assert_eq!(
        reason(400, body, "req_2"),
        "400 invalid_request_error parameter_unknown payment_method_types[] (req_2): Received unknown parameter: payment_method_types[]"
    );
}
