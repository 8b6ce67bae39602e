//! Each fault, on each call: a retry succeeds, and the call is carried out once.

use super::*;

const FAULTS: [Fault; 10] = [
    Fault::ErrorBefore,
    Fault::ErrorAfter,
    Fault::StoredError,
    Fault::StoredFailure,
    Fault::LockTimeout,
    Fault::DropBefore,
    Fault::DropAfter,
    Fault::Slow(Duration::from_millis(50)),
    Fault::Throttle,
    Fault::Refuse(Duration::from_millis(100)),
];

/// Runs a test for each fault at once, each with a gateway and an adapter of its own.
async fn through_each(test: impl AsyncFn(Fault, TestGateway, StripeGateway)) {
    let tests = FAULTS.map(|fault| {
        let (gateway, stripe) = pair();
        test(fault, gateway, stripe)
    });
    futures_util::future::join_all(tests).await;
}

#[tokio::test]
async fn a_charge_is_made_once() {
    through_each(async |fault, gateway, stripe| {
        gateway.script([(Endpoint::Charge, fault)]);
        let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
        let ledger = gateway.ledger();
        let charge = ledger.only_charge("pay_1");
        assert_eq!(charge.intent_id, charged.transaction_id, "{fault:?}");
        assert_eq!(gateway.unused_faults(), 0, "{fault:?}");
        ledger.assert_nothing_twice();
    })
    .await;
}

#[tokio::test]
async fn a_decline_is_told_through_each_fault() {
    through_each(async |fault, gateway, stripe| {
        gateway.script([(Endpoint::Charge, fault)]);
        let declined = charge(
            "pay_1",
            "pm_card_chargeDeclinedLostCard",
            CaptureMethod::Automatic,
        );
        let result = stripe.charge(&declined).await;
        assert_eq!(word(&result), "declined lost_card", "{fault:?}");
        let ledger = gateway.ledger();
        assert_eq!(ledger.unpaid_for("pay_1").len(), 1, "{fault:?}");
        assert_eq!(ledger.open_for("pay_1").len(), 0, "{fault:?}");
    })
    .await;
}

#[tokio::test]
async fn a_card_is_tokenized() {
    through_each(async |fault, gateway, stripe| {
        gateway.script([(Endpoint::Tokenize, fault)]);
        let token = stripe
            .tokenize(&card("4242424242424242"), None)
            .await
            .expect("a token");
        let charge = charge("pay_1", token.as_str(), CaptureMethod::Automatic);
        assert_eq!(word(&stripe.charge(&charge).await), "done", "{fault:?}");
        let keys: Vec<_> = gateway
            .requests(Endpoint::Tokenize)
            .into_iter()
            .map(|request| request.idempotency_key.expect("a key"))
            .collect();
        // Only a mute key is replaced by another.
        let is_mute = matches!(fault, Fault::StoredError | Fault::StoredFailure);
        let same = keys.iter().all(|key| *key == keys[0]);
        assert_eq!(same, !is_mute, "{fault:?} {keys:?}");
    })
    .await;
}

#[tokio::test]
async fn a_capture_is_made_once() {
    through_each(async |fault, gateway, stripe| {
        let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
        gateway.script([(Endpoint::Capture, fault)]);
        let result = stripe.capture(&capture(&charged, 3_000)).await;
        assert_eq!(word(&result), "done", "{fault:?}");
        let ledger = gateway.ledger();
        assert_eq!(ledger.captures_for("pay_1").len(), 1, "{fault:?}");
        assert_eq!(
            ledger.only_charge("pay_1").amount_captured,
            3_000,
            "{fault:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_cancel_is_made_once() {
    through_each(async |fault, gateway, stripe| {
        let charged = stripe.charge(&held("pay_1")).await.expect("a charge");
        gateway.script([(Endpoint::Cancel, fault)]);
        assert_eq!(
            word(&stripe.cancel(&cancel(&charged)).await),
            "done",
            "{fault:?}"
        );
        assert_eq!(gateway.ledger().cancels_for("pay_1").len(), 1, "{fault:?}");
    })
    .await;
}

#[tokio::test]
async fn a_refund_is_made_once() {
    through_each(async |fault, gateway, stripe| {
        let charged = stripe.charge(&taken("pay_1")).await.expect("a charge");
        gateway.script([(Endpoint::Refund, fault)]);
        let refund = refund(&charged, "ref_1", 2_000);
        let refunded = stripe.refund(&refund).await.expect("a refund");
        let ledger = gateway.ledger();
        let [entry] = ledger.refunds_by_id("ref_1")[..] else {
            panic!("{fault:?}: {:?}", ledger.refunds)
        };
        assert_eq!(
            entry.gateway_refund_id, refunded.gateway_refund_id,
            "{fault:?}"
        );
        ledger.assert_nothing_twice();
    })
    .await;
}

#[tokio::test]
async fn a_question_gets_through() {
    let reading = [
        Endpoint::ListIntents,
        Endpoint::Retrieve,
        Endpoint::ListRefunds,
    ];
    through_each(async |fault, gateway, stripe| {
        let charge = taken("pay_1");
        let charged = stripe.charge(&charge).await.expect("a charge");
        let refund = refund(&charged, "ref_1", 2_000);
        stripe.refund(&refund).await.expect("a refund");
        gateway.script(reading.map(|endpoint| (endpoint, fault)));
        let found = stripe.find_charge(&charge).await.expect("an answer");
        assert_eq!(found, Some(charged), "{fault:?}");
        let found = stripe.find_refund(&refund).await.expect("an answer");
        assert!(found.is_some(), "{fault:?}");
        assert_eq!(gateway.unused_faults(), 0, "{fault:?}");
    })
    .await;
}

#[tokio::test]
async fn faults_in_a_row_are_got_through() {
    let (gateway, stripe) = pair();
    let row = [
        Fault::ErrorBefore,
        Fault::DropBefore,
        Fault::Throttle,
        Fault::DropAfter,
        Fault::ErrorAfter,
        Fault::Refuse(Duration::from_millis(50)),
    ];
    gateway.script(row.map(|fault| (Endpoint::Charge, fault)));
    assert_eq!(word(&stripe.charge(&taken("pay_1")).await), "done");
    gateway.ledger().only_charge("pay_1");
    let keys = gateway.requests(Endpoint::Charge);
    assert!(
        keys.iter()
            .all(|request| request.idempotency_key.as_deref() == Some("pay_1"))
    );
}

#[tokio::test]
async fn many_payments_through_chaos_are_each_charged_once() {
    let (gateway, stripe) = pair();
    gateway.chaos(4, 35);
    let payments = (0..40).map(|number| taken(&format!("pay_{number}")));
    let charged = payments.map(async |charge| {
        // If nothing happened, or nothing is known yet, the payment is sent again with the same id.
        for _ in 0..20 {
            match word(&stripe.charge(&charge).await).as_str() {
                "done" => return,
                "nothing happened" => {
                    let ledger = gateway.ledger();
                    assert!(ledger.charges_for(&charge.payment_id).is_empty());
                }
                "unknown" => {}
                other => panic!("{other}"),
            }
        }
        panic!("{} is never charged", charge.payment_id);
    });
    futures_util::future::join_all(charged).await;
    let ledger = gateway.ledger();
    assert_eq!(ledger.charges.len(), 40);
    ledger.assert_nothing_twice();
}
