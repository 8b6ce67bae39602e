//! The six kinds of result, for the adapter's caller.

use payonce::gateway::{Advice, Circuit, Refusal};

use super::*;

fn refusal<T: std::fmt::Debug>(result: Result<T, GatewayError>) -> Refusal {
    match result {
        Err(GatewayError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_told_in_the_clients_words() {
    let (_gateway, stripe) = pair();
    let charge_of = |minor, currency| Charge {
        amount: amount(minor, currency),
        ..taken("pay_1")
    };
    let stranger = Charge {
        gateway_customer_id: Some("nobody".to_owned()),
        ..taken("pay_1")
    };
    let unknown = charge("pay_1", "pm_card_unheard_of", CaptureMethod::Automatic);
    let rows = [
        (charge_of(49, "USD"), "amount_too_small", "amount"),
        (charge_of(100_000_000, "USD"), "amount_too_large", "amount"),
        (charge_of(1_235, "KWD"), "invalid_amount", "amount"),
        (charge_of(150, "MGA"), "invalid_amount", "amount"),
        (charge_of(500_000, "IQD"), "invalid_request", "currency"),
        (unknown, "resource_missing", "paymentMethod.token"),
        (stranger, "resource_missing", "customer.gatewayCustomerId"),
    ];
    for (number, (charge, code, param)) in rows.into_iter().enumerate() {
        let charge = Charge {
            payment_id: format!("pay_{number}"),
            ..charge
        };
        let refusal = refusal(stripe.charge(&charge).await);
        assert_eq!(
            (refusal.code.as_str(), refusal.param.as_deref()),
            (code, Some(param))
        );
        assert!(!refusal.message.contains("pm_card"), "{refusal:?}");
    }
}

#[tokio::test]
async fn what_an_operator_has_to_put_right_declines_no_card_and_ends_with_it() {
    for fault in Fault::MISCONFIGURED {
        let (gateway, stripe) = pair();
        gateway.chaos_of(1, 100, &[*fault]);
        let charge = taken("pay_1");
        assert_eq!(
            word(&stripe.charge(&charge).await),
            "misconfigured",
            "{fault:?}"
        );
        let card = card("4242424242424242");
        let token = stripe.tokenize(&card, None).await;
        assert_eq!(word(&token), "misconfigured", "{fault:?}");
        assert_eq!(gateway.calls(Endpoint::Charge).received, 1, "asked once");
        gateway.calm();
        assert_eq!(word(&stripe.charge(&charge).await), "done", "{fault:?}");
        gateway.ledger().only_charge("pay_1");
    }
}

#[tokio::test]
async fn raw_cards_that_the_account_may_not_send_are_no_decline() {
    let (gateway, stripe) = pair();
    gateway.refuse_raw_cards();
    match stripe.tokenize(&card("4242424242424242"), None).await {
        Err(GatewayError::Misconfigured { reason }) => {
            assert!(reason.contains("Sending credit card numbers"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(word(&stripe.charge(&taken("pay_1")).await), "done");
}

#[tokio::test]
async fn a_refusal_after_an_attempt_without_an_answer_does_not_say_that_nothing_was_done() {
    for second in [Fault::WrongSecret, Fault::WrongVersion] {
        let (gateway, stripe) = pair();
        gateway.script([
            (Endpoint::Charge, Fault::DropAfter),
            (Endpoint::Charge, second),
        ]);
        assert_eq!(word(&stripe.charge(&taken("pay_1")).await), "unknown");
        gateway.ledger().only_charge("pay_1");
    }
    let (gateway, stripe) = pair();
    gateway.script([(Endpoint::Charge, Fault::DropBefore)]);
    let unheard_of = charge("pay_1", "pm_card_unheard_of", CaptureMethod::Automatic);
    assert_eq!(word(&stripe.charge(&unheard_of).await), "unknown");
    // Stripe has stored it under the key by now, so it is certain.
    gateway.script([(Endpoint::Charge, Fault::DropBefore)]);
    assert_eq!(
        word(&stripe.charge(&unheard_of).await),
        "refused resource_missing"
    );
}

#[tokio::test]
async fn a_decline_carries_the_advice() {
    let (_gateway, stripe) = pair();
    let stolen = charge(
        "pay_1",
        "pm_card_chargeDeclinedStolenCard",
        CaptureMethod::Automatic,
    );
    let expected = Advice {
        advice_code: Some("do_not_try_again".to_owned()),
        network_advice_code: Some("01".to_owned()),
        network_decline_code: Some("43".to_owned()),
    };
    // Also when its intent is found later: by then it is canceled, and only the charge still says why.
    for result in [
        stripe.charge(&stolen).await.map(Some),
        stripe.find_charge(&stolen).await,
    ] {
        match result {
            Err(GatewayError::Declined(decline)) => {
                assert_eq!(decline.code, "stolen_card");
                assert_eq!(decline.advice, expected);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_merchant_recognises_its_payment_at_stripe() {
    let (gateway, stripe) = pair();
    let named = Card {
        holder_name: Some("Test User".to_owned()),
        ..card("4242424242424242")
    };
    let token = stripe.tokenize(&named, None).await.expect("a token");
    let charge = Charge {
        gateway_customer_id: Some("cus_1".to_owned()),
        off_session: true,
        description: Some("Two chairs".to_owned()),
        token,
        ..taken("pay_1")
    };
    let charged = stripe.charge(&charge).await.expect("a charge");
    let name = charged.card.and_then(|card| card.holder_name);
    assert_eq!(name.as_deref(), Some("Test User"));
    let request = &gateway.requests(Endpoint::Charge)[0];
    let rows = [
        ("customer", Some("cus_1")),
        ("off_session", Some("true")),
        ("error_on_requires_action", None),
        ("description", Some("Two chairs")),
        ("metadata[payment_id]", Some("pay_1")),
        ("metadata[merchant_id]", Some("acme")),
    ];
    for (name, expected) in rows {
        assert_eq!(request.param(name), expected, "{name}");
    }
    let found = stripe.find_charge(&charge).await.expect("an answer");
    assert!(found.is_some());
}

#[tokio::test]
async fn a_payment_stays_in_its_merchants_account() {
    let (gateway, stripe) = pair();
    let account = Some("acct_1".to_owned());
    let token = stripe
        .tokenize(&card("4242424242424242"), account.as_deref())
        .await
        .expect("a token");
    let charge = Charge {
        account: account.clone(),
        token,
        ..held("pay_1")
    };
    let charged = stripe.charge(&charge).await.expect("a charge");
    let found = stripe.find_charge(&charge).await.expect("an answer");
    assert_eq!(found.as_ref(), Some(&charged));
    let taking = Capture {
        account: account.clone(),
        ..capture(&charged, 5_000)
    };
    stripe.capture(&taking).await.expect("a capture");
    let giving = GatewayRefund {
        account,
        ..refund(&charged, "ref_1", 1_000)
    };
    stripe.refund(&giving).await.expect("a refund");
    assert!(
        stripe
            .find_refund(&giving)
            .await
            .expect("an answer")
            .is_some()
    );
    // The service's own account has none of it.
    assert_eq!(word(&stripe.find_charge(&taken("pay_1")).await), "unknown");
    assert_eq!(
        word(&stripe.capture(&capture(&charged, 5_000)).await),
        "misconfigured"
    );
    // An invalid account is never sent.
    let odd = Charge {
        account: Some("acct_\n".to_owned()),
        ..held("pay_2")
    };
    let received = gateway.calls(Endpoint::Charge).received;
    assert_eq!(word(&stripe.charge(&odd).await), "misconfigured");
    assert_eq!(gateway.calls(Endpoint::Charge).received, received);
}

#[tokio::test]
async fn the_circuit_remembers_why_the_gateway_refuses_this_service() {
    let (gateway, stripe) = pair();
    let circuit = Circuit::new(std::sync::Arc::new(stripe));
    assert_eq!(circuit.trouble(), None);
    gateway.chaos_of(1, 100, &[Fault::WrongSecret]);
    for number in 0..10 {
        let charge = taken(&format!("pay_{number}"));
        assert_eq!(word(&circuit.charge(&charge).await), "misconfigured");
    }
    let trouble = circuit.trouble().expect("trouble");
    assert!(trouble.contains("401"), "{trouble}");
    assert!(
        circuit.is_available(),
        "it answers, so the circuit stays closed"
    );
    gateway.calm();
    assert_eq!(word(&circuit.charge(&taken("pay_1")).await), "done");
    assert_eq!(circuit.trouble(), None);
}
