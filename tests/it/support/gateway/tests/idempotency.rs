//! Stripe's idempotency rules.

use super::super::{Endpoint, Fault, TestGateway};
use super::{Caller, charge_form, error};

#[tokio::test]
async fn the_same_key_and_parameters_get_the_first_answer_byte_for_byte() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let first = caller.charge("pay_1", "pm_card_visa", "automatic").await;
    let second = caller.charge("pay_1", "pm_card_visa", "automatic").await;
    assert!(!first.replayed && second.replayed);
    assert_eq!(first.body, second.body);
    let calls = gateway.calls(Endpoint::Charge);
    assert_eq!((calls.received, calls.executed, calls.replayed), (2, 1, 1));
    gateway.ledger().only_charge("pay_1");
}

#[tokio::test]
async fn the_order_of_parameters_makes_no_difference() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let mut form = charge_form("pay_1", "pm_card_visa", "automatic");
    caller.posted("/v1/payment_intents", "k", &form).await;
    form.reverse();
    assert!(
        caller
            .posted("/v1/payment_intents", "k", &form)
            .await
            .replayed
    );
}

#[tokio::test]
async fn a_decline_is_replayed_too() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let first = caller
        .charge("pay_1", "pm_card_visa_chargeDeclined", "automatic")
        .await;
    let second = caller
        .charge("pay_1", "pm_card_visa_chargeDeclined", "automatic")
        .await;
    assert_eq!((first.status, first.replayed), (402, false));
    assert_eq!((second.status, second.replayed), (402, true));
    assert_eq!(first.body, second.body);
}

#[tokio::test]
async fn an_error_of_execution_is_replayed_even_when_its_cause_is_gone() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let intent = caller.held("pay_1").await;
    let refund = [("payment_intent", intent.as_str())];
    let early = caller.posted("/v1/refunds", "ref_1", &refund).await;
    assert_eq!(
        early.error(),
        error(
            400,
            "invalid_request_error",
            "payment_intent_unexpected_state"
        )
    );
    caller
        .posted(&format!("/v1/payment_intents/{intent}/capture"), "c", &[])
        .await;
    let late = caller.posted("/v1/refunds", "ref_1", &refund).await;
    assert_eq!((late.replayed, late.body), (true, early.body));
}

#[tokio::test]
async fn other_parameters_or_another_endpoint_are_refused() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let intent = caller.held("pay_1").await;
    let other_card = caller.charge("pay_1", "pm_card_mastercard", "manual").await;
    assert_eq!(other_card.error(), error(400, "idempotency_error", ""));
    // Neither has parameters, so that only the path differs.
    let call = |verb| format!("/v1/payment_intents/{intent}/{verb}");
    assert_eq!(
        caller.posted(&call("capture"), "verb", &[]).await.status,
        200
    );
    let other_call = caller.posted(&call("cancel"), "verb", &[]).await;
    assert_eq!(other_call.error(), error(400, "idempotency_error", ""));
    assert!(
        caller
            .charge("pay_1", "pm_card_visa", "manual")
            .await
            .replayed,
        "the first outcome stays"
    );
    assert!(gateway.ledger().cancels.is_empty());
}

#[tokio::test]
async fn a_key_is_in_use_until_the_first_is_answered() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    let first = tokio::spawn(caller.post("/v1/payment_intents", "pay_1", &form).send());
    gateway.until_executed(Endpoint::Charge, 1).await;

    let second = caller.charge("pay_1", "pm_card_visa", "automatic").await;
    assert_eq!(
        second.error(),
        error(409, "idempotency_error", "idempotency_key_in_use")
    );
    let mismatch = caller.charge("pay_1", "pm_card_amex", "automatic").await;
    assert_eq!(mismatch.error(), error(400, "idempotency_error", ""));

    gateway.release();
    assert_eq!(
        first.await.expect("no panic").expect("an answer").status(),
        200
    );
    assert!(
        caller
            .charge("pay_1", "pm_card_visa", "automatic")
            .await
            .replayed,
        "the 409 was not stored"
    );
    gateway.ledger().only_charge("pay_1");
}

#[tokio::test]
async fn what_fails_before_execution_leaves_the_key_free() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let mut invalid = charge_form("pay_1", "pm_card_visa", "automatic");
    invalid[0] = ("amount", "50.00");
    let refused = caller
        .posted("/v1/payment_intents", "pay_1", &invalid)
        .await;
    assert_eq!(
        refused.error(),
        error(400, "invalid_request_error", "parameter_invalid_integer")
    );

    let nobody = caller
        .http
        .post(format!("{}/v1/payment_intents", caller.base))
        .header("Idempotency-Key", "pay_1");
    assert_eq!(
        nobody
            .form(&invalid)
            .send()
            .await
            .expect("an answer")
            .status(),
        401
    );

    let charged = caller.charge("pay_1", "pm_card_visa", "automatic").await;
    assert_eq!((charged.status, charged.replayed), (200, false));
}

#[tokio::test]
async fn without_a_key_each_request_is_executed() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    caller.posted("/v1/payment_intents", "", &form).await;
    caller.posted("/v1/payment_intents", "", &form).await;
    let ledger = gateway.ledger();
    assert_eq!(
        ledger.charges_for("pay_1").len(),
        2,
        "the ledger shows a double charge"
    );
    assert!(std::panic::catch_unwind(|| ledger.only_charge("pay_1").amount).is_err());
    assert!(std::panic::catch_unwind(|| ledger.assert_nothing_twice()).is_err());
}

#[tokio::test]
async fn a_forgotten_key_charges_again() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    caller.paid("pay_1").await;
    gateway.forget_keys();
    caller.paid("pay_1").await;
    assert_eq!(gateway.ledger().charges_for("pay_1").len(), 2);
}
