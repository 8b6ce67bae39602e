//! Asking for the result of a call, which never makes one.

use chrono::TimeDelta;

use super::*;

/// A charge whose claim has this age.
fn aged(charge: Charge, age: TimeDelta) -> Charge {
    Charge {
        claimed_at: charge.claimed_at - age,
        ..charge
    }
}

#[tokio::test]
async fn what_never_was_is_not_found() {
    let (_gateway, stripe) = pair();
    let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
    let long_ago = aged(taken("pay_2"), TimeDelta::hours(21));
    assert_eq!(
        stripe.find_charge(&long_ago).await.expect("an answer"),
        None
    );
    assert_eq!(
        stripe
            .find_capture(&capture(&charged, 1))
            .await
            .expect("an answer"),
        None
    );
    assert_eq!(
        stripe
            .find_cancel(&cancel(&charged))
            .await
            .expect("an answer"),
        None
    );
    let refund = refund(&charged, "ref_1", 1);
    assert_eq!(stripe.find_refund(&refund).await.expect("an answer"), None);
}

#[tokio::test]
async fn what_was_done_is_found_though_its_key_is_mute() {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), AMPLE);
    let charge = held("pay_1");
    gateway.script([
        (Endpoint::Charge, Fault::StoredError),
        (Endpoint::Capture, Fault::StoredError),
        (Endpoint::Refund, Fault::StoredError),
    ]);
    // The search does not find it, and is not used.
    gateway.search_lag(Duration::from_secs(3600));
    assert_eq!(word(&stripe.charge(&charge).await), "done");
    let charged = stripe
        .find_charge(&charge)
        .await
        .expect("an answer")
        .expect("a charge");
    assert_eq!(
        stripe.charge(&charge).await.expect("the same charge"),
        charged
    );
    let taking = capture(&charged, 4_000);
    stripe.capture(&taking).await.expect("a capture");
    assert_eq!(
        stripe.find_capture(&taking).await.expect("an answer"),
        Some(())
    );
    let giving = refund(&charged, "ref_1", 1_000);
    let refunded = stripe.refund(&giving).await.expect("a refund");
    assert_eq!(
        stripe.find_refund(&giving).await.expect("an answer"),
        Some(refunded)
    );
    gateway.ledger().assert_nothing_twice();
}

#[tokio::test]
async fn another_amount_is_another_capture() {
    let (_gateway, stripe) = pair();
    let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
    stripe
        .capture(&capture(&charged, 4_000))
        .await
        .expect("a capture");
    let found = stripe.find_capture(&capture(&charged, 3_999)).await;
    assert_eq!(word(&found), "declined payment_intent_unexpected_state");
}

#[tokio::test]
async fn a_refund_is_found_among_hundreds() {
    let (_gateway, stripe) = pair();
    let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
    for number in 0..250 {
        let refund = refund(&charged, &format!("ref_{number}"), 1);
        stripe.refund(&refund).await.expect("a refund");
    }
    for number in ["0", "149", "150", "249"] {
        let refund = refund(&charged, &format!("ref_{number}"), 1);
        assert!(
            stripe
                .find_refund(&refund)
                .await
                .expect("an answer")
                .is_some(),
            "{number}"
        );
    }
    let none = refund(&charged, "ref_250", 1);
    assert_eq!(stripe.find_refund(&none).await.expect("an answer"), None);
}

#[tokio::test]
async fn a_question_changes_nothing_and_never_says_that_nothing_happened() {
    let gateway = TestGateway::start();
    let stripe = adapter(&gateway.url(), Duration::from_millis(500));
    let charge = taken("pay_1");
    let charged = stripe.charge(&charge).await.expect("a charge");
    let before = gateway.ledger();
    let words = async |stripe: &StripeGateway| {
        [
            word(&stripe.find_charge(&charge).await),
            word(&stripe.find_capture(&capture(&charged, 5_000)).await),
            word(&stripe.find_cancel(&cancel(&charged)).await),
            word(&stripe.find_refund(&refund(&charged, "ref_1", 1)).await),
        ]
    };
    assert_eq!(
        words(&stripe).await,
        [
            "done",
            "done",
            "declined payment_intent_unexpected_state",
            "done"
        ]
    );
    gateway.refuse();
    let fresh = adapter(&gateway.url(), Duration::from_millis(500));
    assert_eq!(words(&fresh).await, ["unknown"; 4]);
    gateway.accept();
    gateway.chaos_of(1, 100, &[Fault::Throttle]);
    assert_eq!(words(&fresh).await, ["unknown"; 4]);
    let after = gateway.ledger();
    for endpoint in [
        Endpoint::Charge,
        Endpoint::Capture,
        Endpoint::Cancel,
        Endpoint::Refund,
    ] {
        assert_eq!(
            before.calls(endpoint),
            after.calls(endpoint),
            "{endpoint:?}"
        );
    }
}

#[tokio::test]
async fn of_two_intents_the_one_that_was_paid_counts() {
    let (gateway, stripe) = pair();
    // A gateway that has forgotten the key charges again, which only the test's books show.
    let declined = charge("pay_1", "pm_card_chargeDeclined", CaptureMethod::Automatic);
    let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
    gateway.forget_keys();
    assert_eq!(
        word(&stripe.charge(&declined).await),
        "declined generic_decline"
    );
    let found = stripe.find_charge(&declined).await.expect("an answer");
    assert_eq!(found, Some(charged));
}
