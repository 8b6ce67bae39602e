//! The requests that are sent, and the meaning of each final answer.

use super::*;

#[tokio::test]
async fn a_charge_says_what_api_md_says_and_no_more() {
    let (gateway, stripe) = pair();
    let charge = Charge {
        amount: amount(1_230, "KWD"),
        ..held("pay_1")
    };
    let charged = stripe.charge(&charge).await.expect("a charge");
    let expected = CardSummary {
        brand: "visa".to_owned(),
        last4: "4242".to_owned(),
        expiry_month: 12,
        ..charged.card.clone().expect("a card")
    };
    assert_eq!(charged.card, Some(expected));
    let [request] = &gateway.requests(Endpoint::Charge)[..] else {
        panic!("one request")
    };
    assert_eq!(request.idempotency_key.as_deref(), Some("pay_1"));
    let sent: Vec<(&str, &str)> = request
        .params
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expected = [
        ("amount", "1230"),
        ("automatic_payment_methods[allow_redirects]", "never"),
        ("automatic_payment_methods[enabled]", "true"),
        ("capture_method", "manual"),
        ("confirm", "true"),
        ("currency", "kwd"),
        ("error_on_requires_action", "true"),
        ("expand[]", "payment_method"),
        ("metadata[merchant_id]", "acme"),
        ("metadata[payment_id]", "pay_1"),
        ("payment_method", "pm_card_visa"),
    ];
    assert_eq!(sent, expected);
    assert_eq!(request.version.as_deref(), Some("2026-10-28.endive"));
    assert_eq!(request.account, "");
}

#[tokio::test]
async fn each_call_has_its_key() {
    let (gateway, stripe) = pair();
    let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
    stripe
        .capture(&capture(&charged, 5_000))
        .await
        .expect("a capture");
    stripe
        .refund(&refund(&charged, "ref_1", 1))
        .await
        .expect("a refund");
    let held = stripe.charge(&held("pay_2")).await.expect("a charge");
    let cancel = Cancel {
        key: "pay_2:cancel".to_owned(),
        payment_id: "pay_2".to_owned(),
        ..cancel(&held)
    };
    stripe.cancel(&cancel).await.expect("a cancel");
    let rows = [
        (Endpoint::Capture, "pay_1:capture"),
        (Endpoint::Refund, "ref_1"),
        (Endpoint::Cancel, "pay_2:cancel"),
    ];
    for (endpoint, key) in rows {
        let requests = gateway.requests(endpoint);
        assert_eq!(requests[0].idempotency_key.as_deref(), Some(key));
    }
}

#[tokio::test]
async fn each_test_card_is_declined_in_its_words() {
    let (gateway, stripe) = pair();
    let rows = [
        (
            "4000000000000002",
            "generic_decline",
            "The card was declined",
        ),
        (
            "4000000000009995",
            "insufficient_funds",
            "Insufficient funds",
        ),
        ("4000000000009987", "lost_card", "The card was declined"),
        ("4000000000009979", "stolen_card", "The card was declined"),
        ("4000000000000069", "expired_card", "The card has expired"),
        (
            "4000000000000127",
            "incorrect_cvc",
            "The card's security code is incorrect",
        ),
        (
            "4000000000000119",
            "processing_error",
            "An error occurred while processing the card",
        ),
    ];
    for (number, code, message) in rows {
        let token = stripe.tokenize(&card(number), None).await.expect("a token");
        let charge = charge(
            &format!("pay_{code}"),
            token.as_str(),
            CaptureMethod::Automatic,
        );
        // A repeated call, and a question about it, return the same decline, although its intent is canceled.
        let told = [
            stripe.charge(&charge).await.map(Some),
            stripe.charge(&charge).await.map(Some),
            stripe.find_charge(&charge).await,
        ];
        for result in told {
            match result {
                Err(GatewayError::Declined(decline)) => {
                    assert_eq!(
                        (decline.code.as_str(), decline.message.as_str()),
                        (code, message)
                    );
                }
                other => panic!("{other:?}"),
            }
        }
        let ledger = gateway.ledger();
        assert_eq!(ledger.open_for(&charge.payment_id).len(), 0, "{code}");
    }
}

#[tokio::test]
async fn what_stripe_will_never_do_is_asked_for_once() {
    let (gateway, stripe) = pair();
    let unknown = charge("pay_1", "pm_card_unheard_of", CaptureMethod::Automatic);
    let huge = Charge {
        amount: amount(100_000_000, "USD"),
        ..taken("pay_2")
    };
    assert_eq!(
        word(&stripe.charge(&unknown).await),
        "refused resource_missing"
    );
    assert_eq!(
        word(&stripe.charge(&huge).await),
        "refused amount_too_large"
    );
    assert_eq!(gateway.calls(Endpoint::Charge).received, 2);
    let fraction = Charge {
        amount: amount(150, "MGA"),
        ..taken("pay_3")
    };
    assert_eq!(
        word(&stripe.charge(&fraction).await),
        "refused invalid_amount"
    );
    assert_eq!(gateway.calls(Endpoint::Charge).received, 2);
}

#[tokio::test]
async fn authentication_is_a_decline_and_the_intent_is_canceled() {
    let numbers = ["4000002500003155", "4000002760003184", "4000000000003220"];
    // Also an intent that waits for it, as one does that was made otherwise.
    for (number, waits) in numbers.into_iter().flat_map(|n| [(n, false), (n, true)]) {
        let (gateway, stripe) = pair();
        if waits {
            gateway.wait_for_authentication();
        }
        let token = stripe.tokenize(&card(number), None).await.expect("a token");
        let charge = charge("pay_1", token.as_str(), CaptureMethod::Automatic);
        for _ in 0..2 {
            let result = stripe.charge(&charge).await;
            assert_eq!(word(&result), "declined authentication_required");
        }
        let found = stripe.find_charge(&charge).await;
        assert_eq!(word(&found), "declined authentication_required");
        let ledger = gateway.ledger();
        assert_eq!(ledger.unpaid_for("pay_1")[0].status, "canceled");
        assert_eq!(ledger.cancels_for("pay_1").len(), 1);
    }
}

#[tokio::test]
async fn an_intent_that_may_not_be_canceled_is_not_a_decline_yet() {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), Duration::from_secs(2));
    gateway.wait_for_authentication();
    gateway.script([(Endpoint::Cancel, Fault::Throttle); 10]);
    let charge = charge(
        "pay_1",
        "pm_card_authenticationRequired",
        CaptureMethod::Automatic,
    );
    assert_eq!(word(&stripe.charge(&charge).await), "unknown");
    gateway.calm();
    // Recovery asks, and it is found and canceled then.
    let found = stripe.find_charge(&charge).await;
    assert_eq!(word(&found), "declined authentication_required");
    assert_eq!(gateway.ledger().unpaid_for("pay_1")[0].status, "canceled");
}

#[tokio::test]
async fn what_is_done_already_is_done() {
    let (gateway, stripe) = pair();
    let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
    let taking = capture(&charged, 3_000);
    // Not before.
    assert_eq!(stripe.find_capture(&taking).await.expect("an answer"), None);
    stripe.capture(&taking).await.expect("a capture");
    let first = refund(&charged, "ref_1", 1_000);
    let refunded = stripe.refund(&first).await.expect("a refund");
    // The keys are gone after a day, and Stripe refuses to do it again.
    gateway.forget_keys();
    assert_eq!(word(&stripe.capture(&taking).await), "done");
    assert_eq!(
        word(&stripe.capture(&capture(&charged, 2_999)).await),
        "declined payment_intent_unexpected_state"
    );
    let rest = refund(&charged, "ref_2", 2_000);
    stripe.refund(&rest).await.expect("a refund");
    gateway.forget_keys();
    assert_eq!(stripe.refund(&first).await.expect("a refund"), refunded);
    gateway.ledger().assert_nothing_twice();
}

#[tokio::test]
async fn a_cancel_that_is_done_is_done_and_one_that_cannot_be_is_declined() {
    let (gateway, stripe) = pair();
    let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
    let letting_go = cancel(&charged);
    assert_eq!(
        stripe.find_cancel(&letting_go).await.expect("an answer"),
        None
    );
    stripe.cancel(&letting_go).await.expect("a cancel");
    gateway.forget_keys();
    assert_eq!(word(&stripe.cancel(&letting_go).await), "done");
    assert_eq!(
        word(&stripe.capture(&capture(&charged, 5_000)).await),
        "hold lapsed"
    );
    let taken = stripe.charge(&taken("pay_2")).await.expect("a charge");
    let too_late = Cancel {
        payment_id: "pay_2".to_owned(),
        ..cancel(&taken)
    };
    assert_eq!(
        word(&stripe.cancel(&too_late).await),
        "declined payment_intent_unexpected_state"
    );
    assert_eq!(
        word(&stripe.find_cancel(&too_late).await),
        "declined payment_intent_unexpected_state"
    );
}

#[tokio::test]
async fn more_than_is_there_is_declined() {
    let (gateway, stripe) = pair();
    let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
    assert_eq!(
        word(&stripe.capture(&capture(&charged, 5_001)).await),
        "refused amount_too_large"
    );
    // Another attempt has its own key, so it does not have to wait until the refused one is forgotten.
    let smaller = Capture {
        key: "cap_2".to_owned(),
        ..capture(&charged, 5_000)
    };
    stripe.capture(&smaller).await.expect("a capture");
    let too_much = refund(&charged, "ref_1", 5_001);
    assert_eq!(
        word(&stripe.refund(&too_much).await),
        "refused invalid_request"
    );
    stripe
        .refund(&refund(&charged, "ref_2", 5_000))
        .await
        .expect("a refund");
    let nothing_left = refund(&charged, "ref_3", 1);
    assert_eq!(
        word(&stripe.refund(&nothing_left).await),
        "declined charge_already_refunded"
    );
    gateway.ledger().assert_nothing_twice();
}

#[tokio::test]
async fn a_key_that_stands_for_another_request_is_asked_about() {
    let (gateway, stripe) = pair();
    let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
    let other = charge("pay_1", "pm_card_mastercard", CaptureMethod::Automatic);
    let found = stripe
        .charge(&other)
        .await
        .expect("the charge that was made");
    assert_eq!(found, charged);
    gateway.ledger().only_charge("pay_1");
}

#[tokio::test]
async fn a_wrong_api_key_charges_nothing_and_is_told_at_once() {
    let gateway = TestGateway::start();
    let key = SecretString::from("sk_live_wrong");
    let stripe = StripeGateway::new(&gateway.url(), key, AMPLE).expect("an adapter");
    let result = stripe.charge(&taken("pay_1")).await;
    assert_eq!(word(&result), "misconfigured");
    let text = format!("{result:?} {stripe:?}");
    assert!(!text.contains("sk_live_wrong"), "{text}");
    assert_eq!(
        word(&stripe.tokenize(&card("4242424242424242"), None).await),
        "misconfigured"
    );
    assert_eq!(word(&stripe.find_charge(&taken("pay_1")).await), "unknown");
    // A wrong base is no different.
    let stripe = adapter(&format!("{}/elsewhere", gateway.url()), AMPLE);
    assert_eq!(word(&stripe.charge(&taken("pay_1")).await), "misconfigured");
}

#[tokio::test]
async fn errors_hold_no_card_number() {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), Duration::from_millis(500));
    for fault in [Fault::ErrorBefore, Fault::DropBefore, Fault::Hold] {
        gateway.script([(Endpoint::Tokenize, fault); 20]);
        let error = stripe
            .tokenize(&card("4242424242424242"), None)
            .await
            .expect_err("no token");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("4242"), "{text}");
        gateway.calm();
    }
}
