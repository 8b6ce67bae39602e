//! The adapter trusts only consistent reads, and answers that match the request.

use chrono::TimeDelta;
use payonce::gateway::RefundProgress;
use serde_json::json;

use super::*;

/// The charge of a claim of this age.
fn aged(charge: Charge, age: TimeDelta) -> Charge {
    Charge {
        claimed_at: charge.claimed_at - age,
        ..charge
    }
}

fn keys(gateway: &TestGateway, endpoint: Endpoint) -> Vec<String> {
    gateway
        .requests(endpoint)
        .into_iter()
        .map(|request| request.idempotency_key.expect("a key"))
        .collect()
}

#[tokio::test]
async fn the_search_is_never_asked() {
    let (gateway, stripe) = pair();
    gateway.search_lag(Duration::from_secs(24 * 3600));
    gateway.script([(Endpoint::Charge, Fault::StoredError)]);
    let charge = taken("pay_1");
    let charged = stripe.charge(&charge).await.expect("a charge");
    let found = stripe.find_charge(&charge).await.expect("an answer");
    assert_eq!(found, Some(charged));
    assert_eq!(gateway.calls(Endpoint::Search).received, 0);
}

#[tokio::test]
async fn a_failure_that_stripe_stored_without_doing_anything_ends_in_one_charge() {
    let (gateway, stripe) = pair();
    gateway.script([(Endpoint::Charge, Fault::StoredFailure)]);
    let charge = taken("pay_1");
    let charged = stripe.charge(&charge).await.expect("a charge");
    assert_eq!(
        keys(&gateway, Endpoint::Charge),
        ["pay_1", "pay_1", "pay_1:2"]
    );
    // Another process does the same, and so does a retry.
    let other = adapter(&gateway.url(), AMPLE);
    assert_eq!(other.charge(&charge).await.expect("a charge"), charged);
    gateway.ledger().only_charge("pay_1");
    let refund = refund(&charged, "ref_1", 100);
    gateway.script([(Endpoint::Refund, Fault::StoredFailure)]);
    stripe.refund(&refund).await.expect("a refund");
    assert_eq!(
        keys(&gateway, Endpoint::Refund),
        ["ref_1", "ref_1", "ref_1:2"]
    );
}

/// A call that has failed for now may still be carried out. Under another key it could be carried out twice.
#[tokio::test]
async fn a_failure_that_stripe_did_not_store_keeps_its_key() {
    let (gateway, stripe) = pair();
    gateway.script([(Endpoint::Charge, Fault::ErrorBefore); 3]);
    let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
    assert_eq!(keys(&gateway, Endpoint::Charge), ["pay_1"; 4]);
    gateway.script([(Endpoint::Cancel, Fault::ErrorBefore); 3]);
    let cancel = cancel(&charged);
    stripe.cancel(&cancel).await.expect("a cancel");
    assert_eq!(keys(&gateway, Endpoint::Cancel), [cancel.key.as_str(); 4]);
}

#[tokio::test]
async fn stripe_failing_for_good_did_nothing_and_is_asked_further_later() {
    let (gateway, stripe) = pair();
    gateway.chaos_of(1, 100, &[Fault::StoredFailure]);
    let charge = taken("pay_1");
    // The list is read, too, and fails in the same way, so the outcome is unknown.
    let hasty = adapter(&gateway.url(), Duration::from_secs(1));
    assert_eq!(word(&hasty.charge(&charge).await), "unknown");
    gateway.calm();
    let failing = [(Endpoint::Charge, Fault::StoredFailure); 5];
    gateway.script(failing);
    assert_eq!(word(&stripe.charge(&charge).await), "nothing happened");
    assert!(gateway.ledger().charges.is_empty());
    gateway.calm();
    stripe.charge(&charge).await.expect("a charge");
    gateway.ledger().only_charge("pay_1");
}

#[tokio::test]
async fn a_day_old_claim_has_three_ends() {
    let (gateway, stripe) = pair();
    let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
    gateway.forget_keys();
    gateway.age(Duration::from_secs(21 * 3600));
    let hours = TimeDelta::hours;
    let exists = aged(taken("pay_1"), hours(21));
    let found = stripe.find_charge(&exists).await.expect("an answer");
    assert_eq!(found, Some(charged));
    let never = aged(taken("pay_2"), hours(21));
    assert_eq!(stripe.find_charge(&never).await.expect("an answer"), None);
    // A call that was sent at the last moment may still be under way.
    let young = aged(taken("pay_2"), hours(20) + TimeDelta::minutes(1));
    assert_eq!(word(&stripe.find_charge(&young).await), "unknown");
    assert_eq!(gateway.calls(Endpoint::Charge).received, 1);
}

#[tokio::test]
async fn a_charge_of_any_moment_of_its_claim_is_found_among_hundreds() {
    let (gateway, stripe) = pair();
    let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
    for number in 0..210 {
        let other = taken(&format!("other_{number}"));
        stripe.charge(&other).await.expect("a charge");
    }
    // Claimed 19 hours before it was made, at the same time, and by a clock that is ahead of Stripe's.
    for age in [
        TimeDelta::hours(19),
        TimeDelta::zero(),
        -TimeDelta::minutes(5),
    ] {
        let charge = aged(taken("pay_1"), age);
        let found = stripe.find_charge(&charge).await.expect("an answer");
        assert_eq!(found.as_ref(), Some(&charged), "{age}");
    }
    let lists = gateway.calls(Endpoint::ListIntents).received;
    assert!(lists >= 9, "{lists} pages");
}

#[tokio::test]
async fn a_list_that_is_not_read_to_its_end_says_nothing() {
    let gateway = TestGateway::start();
    let ample = adapter(&gateway.url(), AMPLE);
    for number in 0..110 {
        let other = taken(&format!("other_{number}"));
        ample.charge(&other).await.expect("a charge");
    }
    let hasty = adapter(&gateway.url(), Duration::from_millis(500));
    gateway.script([
        (Endpoint::ListIntents, Fault::None),
        (Endpoint::ListIntents, Fault::Hold),
    ]);
    let never = aged(taken("pay_1"), TimeDelta::hours(21));
    assert_eq!(word(&hasty.find_charge(&never).await), "unknown");
}

/// The list can be read for one page an attempt: the next one hangs.
fn one_page_an_attempt(gateway: &TestGateway) {
    let faults = [Fault::None, Fault::Hold].map(|fault| (Endpoint::ListIntents, fault));
    gateway.script(faults.into_iter().cycle().take(200));
}

/// The list can be read for one page.
fn the_second_page_hangs(gateway: &TestGateway) {
    gateway.script([(Endpoint::ListIntents, Fault::None)]);
    gateway.script([(Endpoint::ListIntents, Fault::Hold); 20]);
}

/// Makes a call again and again, as recovery does.
async fn until_charged(stripe: &StripeGateway, charge: &Charge) {
    let mut attempts = 0;
    while word(&stripe.charge(charge).await) != "done" {
        attempts += 1;
        assert!(attempts < 30, "it is not charged in {attempts} attempts");
    }
}

/// A gateway with this number of intents of other payments.
async fn busy_gateway(others: usize) -> TestGateway {
    let (gateway, stripe) = pair();
    for number in 0..others {
        let other = taken(&format!("other_{number}"));
        stripe.charge(&other).await.expect("a charge");
    }
    gateway
}

#[tokio::test]
async fn a_search_that_no_attempt_can_read_to_its_end_goes_on_in_the_next() {
    let gateway = busy_gateway(310).await;
    let hasty = adapter(&gateway.url(), Duration::from_secs(1));
    gateway.script([(Endpoint::Charge, Fault::StoredFailure)]);
    one_page_an_attempt(&gateway);
    let charge = taken("pay_1");
    until_charged(&hasty, &charge).await;
    gateway.ledger().only_charge("pay_1");
    let last = gateway.requests(Endpoint::Charge).pop();
    let key = last.and_then(|request| request.idempotency_key);
    assert_eq!(key.as_deref(), Some("pay_1:2"));
    // The result is kept: the list is not read again.
    let lists = gateway.calls(Endpoint::ListIntents).received;
    until_charged(&hasty, &charge).await;
    assert_eq!(gateway.calls(Endpoint::ListIntents).received, lists);
}

/// The search began while a call under the key could still be carried out, and one was, after its first page was read.
#[tokio::test]
async fn what_was_read_before_a_call_was_over_does_not_count_afterwards() {
    let gateway = busy_gateway(110).await;
    let hasty = adapter(&gateway.url(), Duration::from_secs(2));
    gateway.script([(Endpoint::Charge, Fault::ErrorBefore); 2]);
    the_second_page_hangs(&gateway);
    let charge = taken("pay_1");
    assert_eq!(word(&hasty.charge(&charge).await), "unknown");
    gateway.calm();
    gateway.script([(Endpoint::Charge, Fault::StoredError)]);
    until_charged(&hasty, &charge).await;
    gateway.ledger().only_charge("pay_1");
}

#[tokio::test]
async fn of_several_intents_the_one_with_money_counts_and_the_others_are_closed() {
    let (gateway, stripe) = pair();
    let declined = charge("pay_1", "pm_card_chargeDeclined", CaptureMethod::Automatic);
    gateway.script([(Endpoint::Cancel, Fault::Throttle); 20]);
    let no = stripe.charge(&declined).await;
    assert_eq!(word(&no), "declined generic_decline");
    // Stripe did not cancel it, and the decline stands.
    assert_eq!(gateway.ledger().open_for("pay_1").len(), 1);
    gateway.calm();
    gateway.forget_keys();
    let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
    let found = stripe.find_charge(&declined).await.expect("an answer");
    assert_eq!(found, Some(charged));
    assert_eq!(gateway.ledger().open_for("pay_1").len(), 0);
}

#[tokio::test]
async fn what_differs_from_what_was_asked_for_is_no_success() {
    let rows = [
        json!({"amount": 4_999}),
        json!({"amount_received": 4_999}),
        json!({"currency": "eur"}),
        json!({"livemode": true}),
        json!({"id": "pi_1/../x"}),
        json!({"id": "pi_\0"}),
    ];
    for fields in rows {
        let gateway = TestGateway::start();
        let stripe = adapter(&gateway.url(), Duration::from_secs(1));
        gateway.misreport("payment_intent", fields.clone());
        let charge = taken("pay_1");
        assert_eq!(word(&stripe.charge(&charge).await), "unknown", "{fields}");
        assert_eq!(
            word(&stripe.find_charge(&charge).await),
            "unknown",
            "{fields}"
        );
        gateway.misreport("payment_intent", json!({}));
        assert_eq!(word(&stripe.find_charge(&charge).await), "done");
    }
}

#[tokio::test]
async fn a_capture_of_another_amount_than_was_asked_for_is_no_success() {
    for fields in [json!({"amount_received": 1}), json!({"livemode": true})] {
        let gateway = TestGateway::start();
        let stripe = adapter(&gateway.url(), Duration::from_secs(1));
        let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
        gateway.misreport("payment_intent", fields.clone());
        let result = stripe.capture(&capture(&charged, 3_000)).await;
        assert_eq!(word(&result), "unknown", "{fields}");
    }
}

#[tokio::test]
async fn a_refund_of_something_else_than_was_asked_for_is_no_success() {
    let rows = [
        json!({"amount": 1}),
        json!({"currency": "eur"}),
        json!({"payment_intent": "pi_other"}),
        json!({"payment_intent": null}),
        json!({"id": "x"}),
        json!({"status": null}),
        json!({"status": "unheard_of"}),
    ];
    for fields in rows {
        let gateway = TestGateway::start();
        let stripe = adapter(&gateway.url(), Duration::from_secs(1));
        let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
        gateway.misreport("refund", fields.clone());
        let giving = refund(&charged, "ref_1", 2_000);
        assert_eq!(word(&stripe.refund(&giving).await), "unknown", "{fields}");
        assert_eq!(
            word(&stripe.find_refund(&giving).await),
            "unknown",
            "{fields}"
        );
        gateway.misreport("refund", json!({}));
        assert_eq!(word(&stripe.find_refund(&giving).await), "done");
        gateway.ledger().assert_nothing_twice();
    }
}

#[tokio::test]
async fn a_refund_on_its_way_is_pending_until_it_arrives_or_fails() {
    for arrives in [true, false] {
        let (gateway, stripe) = pair();
        gateway.delay_refunds();
        let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
        let giving = refund(&charged, "ref_1", 2_000);
        let made = stripe.refund(&giving).await.expect("a refund");
        assert_eq!(made.progress, RefundProgress::Pending);
        let found = stripe.find_refund(&giving).await.expect("an answer");
        assert_eq!(found, Some(made));
        gateway.end_refunds(arrives);
        let found = stripe.find_refund(&giving).await;
        match arrives {
            true => assert!(
                matches!(&found, Ok(Some(made)) if made.progress == RefundProgress::Succeeded),
                "{found:?}"
            ),
            false => assert_eq!(word(&found), "declined refund_failed"),
        }
    }
}

#[tokio::test]
async fn a_capture_by_somebody_else_is_told_with_its_amount() {
    let (_gateway, stripe) = pair();
    let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
    let theirs = Capture {
        key: "theirs".to_owned(),
        ..capture(&charged, 4_000)
    };
    stripe.capture(&theirs).await.expect("a capture");
    let ours = capture(&charged, 3_000);
    for result in [
        stripe.capture(&ours).await.map(Some),
        stripe.find_capture(&ours).await,
    ] {
        match result {
            Err(GatewayError::Declined(decline)) => {
                assert_eq!(decline.code, "payment_intent_unexpected_state");
                assert_eq!(
                    decline.message,
                    "The gateway has captured 40.00 USD already"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
