//! Stripe's rules for money: what it does, and what it refuses.

use serde_json::json;

use super::super::{ChargeStatus, Endpoint, TestGateway};
use super::{Answer, Caller, charge_form, error};

async fn tokenize(caller: &Caller, number: &str, exp_year: &str) -> Answer {
    let card = [
        ("type", "card"),
        ("card[number]", number),
        ("card[exp_month]", "12"),
        ("card[exp_year]", exp_year),
        ("card[cvc]", "123"),
    ];
    caller.posted("/v1/payment_methods", "", &card).await
}

#[tokio::test]
async fn a_card_becomes_a_token_without_its_number() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let token = tokenize(&caller, "5555555555554444", "2099").await;
    let body = token.json();
    let card = &body["card"];
    assert_eq!(
        [&card["brand"], &card["last4"], &card["exp_year"]],
        [&json!("mastercard"), &json!("4444"), &json!(2099)]
    );
    assert!(token.text("id").starts_with("pm_") && !token.body.contains("55554444"));
    assert_eq!(gateway.ledger().tokenizations, 1);
}

#[tokio::test]
async fn each_card_has_its_outcome() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let table = [
        ("4242424242424242", "2099", 200, "", ""),
        (
            "4000000000000002",
            "2099",
            402,
            "card_declined",
            "generic_decline",
        ),
        (
            "4000000000009995",
            "2099",
            402,
            "card_declined",
            "insufficient_funds",
        ),
        (
            "4000000000009987",
            "2099",
            402,
            "card_declined",
            "lost_card",
        ),
        (
            "4000000000009979",
            "2099",
            402,
            "card_declined",
            "stolen_card",
        ),
        ("4000000000000069", "2099", 402, "expired_card", ""),
        ("4242424242424242", "2020", 402, "expired_card", ""),
        ("4000000000000127", "2099", 402, "incorrect_cvc", ""),
        ("4000000000000119", "2099", 402, "processing_error", ""),
    ];
    for (row, (number, exp_year, status, code, decline_code)) in table.into_iter().enumerate() {
        let payment_id = format!("pay_{row}");
        let token = tokenize(&caller, number, exp_year).await.text("id");
        let answer = caller.charge(&payment_id, &token, "automatic").await;
        let found = (
            answer.status,
            answer.text("error.code"),
            answer.text("error.decline_code"),
        );
        assert_eq!(
            found,
            (status, code.to_owned(), decline_code.to_owned()),
            "{number} {exp_year}"
        );
        let ledger = gateway.ledger();
        assert_eq!(
            ledger.charges_for(&payment_id).len(),
            usize::from(status == 200)
        );
        assert_eq!(
            ledger.unpaid_for(&payment_id).len(),
            usize::from(status == 402)
        );
    }
}

#[tokio::test]
async fn a_decline_carries_its_intent() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let answer = caller
        .charge(
            "pay_1",
            "pm_card_visa_chargeDeclinedInsufficientFunds",
            "automatic",
        )
        .await;
    assert_eq!(answer.error(), error(402, "card_error", "card_declined"));
    assert_eq!(
        answer.text("error.payment_intent.status"),
        "requires_payment_method"
    );
    assert_eq!(
        gateway.ledger().unpaid_for("pay_1")[0].decline,
        Some("insufficient_funds")
    );
}

#[tokio::test]
async fn three_d_secure_waits_and_can_be_canceled() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let token = tokenize(&caller, "4000002760003184", "2099")
        .await
        .text("id");
    let intent = caller.charge("pay_1", &token, "automatic").await;
    assert_eq!(
        (intent.status, intent.text("status")),
        (200, "requires_action".into())
    );
    let cancel = format!("/v1/payment_intents/{}/cancel", intent.text("id"));
    assert_eq!(
        caller.posted(&cancel, "", &[]).await.text("status"),
        "canceled"
    );
    let ledger = gateway.ledger();
    assert_eq!(ledger.unpaid_for("pay_1")[0].status, "canceled");
    assert!(ledger.charges_for("pay_1").is_empty());
}

#[tokio::test]
async fn three_d_secure_without_a_person_is_a_decline() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let mut form = charge_form("pay_1", "pm_card_authenticationRequired", "automatic").to_vec();
    form.push(("error_on_requires_action", "true"));
    let answer = caller.posted("/v1/payment_intents", "pay_1", &form).await;
    assert_eq!(
        answer.error(),
        error(402, "card_error", "authentication_required")
    );
}

#[tokio::test]
async fn a_held_charge_is_captured_once_and_never_beyond_its_amount() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let intent = caller.held("pay_1").await;
    assert_eq!(
        gateway.ledger().only_charge("pay_1").status,
        ChargeStatus::Held
    );
    let capture = format!("/v1/payment_intents/{intent}/capture");

    let too_much = caller
        .posted(&capture, "", &[("amount_to_capture", "5001")])
        .await;
    assert_eq!(
        too_much.error(),
        error(400, "invalid_request_error", "amount_too_large")
    );
    let captured = caller
        .posted(&capture, "", &[("amount_to_capture", "3000")])
        .await
        .json();
    assert_eq!(
        (&captured["status"], &captured["amount_received"]),
        (&json!("succeeded"), &json!(3000))
    );
    let again = caller
        .posted(&capture, "", &[("amount_to_capture", "2000")])
        .await;
    assert_eq!(
        again.error(),
        error(
            400,
            "invalid_request_error",
            "payment_intent_unexpected_state"
        )
    );
    assert_eq!(again.text("error.payment_intent.status"), "succeeded");
    let cancel = caller
        .posted(&format!("/v1/payment_intents/{intent}/cancel"), "", &[])
        .await;
    assert_eq!(
        cancel.error(),
        error(
            400,
            "invalid_request_error",
            "payment_intent_unexpected_state"
        )
    );

    let ledger = gateway.ledger();
    let charge = ledger.only_charge("pay_1");
    assert_eq!(
        (charge.status, charge.amount, charge.amount_captured),
        (ChargeStatus::Captured, 5000, 3000)
    );
    assert_eq!(ledger.captures_for("pay_1").len(), 1);
    ledger.assert_nothing_twice();
}

#[tokio::test]
async fn a_canceled_charge_is_not_captured() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let intent = caller.held("pay_1").await;
    caller
        .posted(&format!("/v1/payment_intents/{intent}/cancel"), "", &[])
        .await;
    let capture = caller
        .posted(&format!("/v1/payment_intents/{intent}/capture"), "", &[])
        .await;
    assert_eq!(
        capture.error(),
        error(
            400,
            "invalid_request_error",
            "payment_intent_unexpected_state"
        )
    );
    let ledger = gateway.ledger();
    assert_eq!(ledger.only_charge("pay_1").status, ChargeStatus::Canceled);
    assert_eq!(ledger.cancels_for("pay_1").len(), 1);
}

#[tokio::test]
async fn refunds_never_exceed_what_was_captured() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let intent = caller.paid("pay_1").await;
    let refund = async |amount, id| {
        let form = [
            ("payment_intent", intent.as_str()),
            ("amount", amount),
            ("metadata[refund_id]", id),
        ];
        caller.posted("/v1/refunds", id, &form).await
    };
    assert_eq!(refund("3000", "ref_1").await.status, 200);
    assert_eq!(
        refund("2001", "ref_2").await.error(),
        error(400, "invalid_request_error", "")
    );
    assert_eq!(refund("2000", "ref_3").await.status, 200);
    assert_eq!(
        refund("1", "ref_4").await.error(),
        error(400, "invalid_request_error", "charge_already_refunded")
    );

    let ledger = gateway.ledger();
    assert_eq!(ledger.only_charge("pay_1").amount_refunded, 5000);
    assert_eq!(ledger.refunds_for("pay_1").len(), 2);
    assert_eq!(ledger.refunds_by_id("ref_3")[0].amount, 2000);
    assert!(ledger.refunds_by_id("ref_2").is_empty());
    ledger.assert_nothing_twice();
}

#[tokio::test]
async fn refunds_are_listed_newest_first_in_pages() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let intent = caller.paid("pay_1").await;
    for id in ["ref_1", "ref_2", "ref_3"] {
        let form = [
            ("payment_intent", intent.as_str()),
            ("amount", "100"),
            ("metadata[refund_id]", id),
        ];
        caller.posted("/v1/refunds", id, &form).await;
    }
    let first = caller
        .get(
            "/v1/refunds",
            &[("payment_intent", &intent), ("limit", "2")],
        )
        .await
        .json();
    let ids = [
        &first["data"][0]["metadata"]["refund_id"],
        &first["data"][1]["metadata"]["refund_id"],
    ];
    assert_eq!(
        (ids, &first["has_more"]),
        ([&json!("ref_3"), &json!("ref_2")], &json!(true))
    );

    let cursor = first["data"][1]["id"].as_str().expect("an id");
    let query = [
        ("payment_intent", intent.as_str()),
        ("limit", "2"),
        ("starting_after", cursor),
    ];
    let second = caller.get("/v1/refunds", &query).await.json();
    assert_eq!(second["data"][0]["metadata"]["refund_id"], "ref_1");
    assert_eq!(second["has_more"], false);
}

#[tokio::test]
async fn an_intent_is_found_by_id_and_by_metadata() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let intent = caller.paid("pay_1").await;
    caller.paid("pay_2").await;
    let expand = [
        ("expand[]", "payment_method"),
        ("expand[]", "latest_charge"),
    ];
    let retrieved = caller
        .get(&format!("/v1/payment_intents/{intent}"), &expand)
        .await
        .json();
    assert_eq!(retrieved["payment_method"]["card"]["brand"], "visa");
    assert_eq!(retrieved["latest_charge"]["amount_captured"], 5000);
    let missing = caller.get("/v1/payment_intents/pi_none", &[]).await;
    assert_eq!(
        missing.error(),
        error(404, "invalid_request_error", "resource_missing")
    );

    let query = [("query", "metadata['payment_id']:'pay_1'")];
    let found = caller
        .get("/v1/payment_intents/search", &query)
        .await
        .json();
    assert_eq!(
        (&found["object"], &found["has_more"]),
        (&json!("search_result"), &json!(false))
    );
    assert_eq!(
        (
            found["data"].as_array().map(Vec::len),
            &found["data"][0]["id"]
        ),
        (Some(1), &json!(intent))
    );

    gateway.search_lag(std::time::Duration::from_secs(3600));
    assert_eq!(
        caller
            .get("/v1/payment_intents/search", &query)
            .await
            .json()["data"],
        json!([])
    );
}

#[tokio::test]
async fn what_stripe_does_not_know_is_refused() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let charge = async |name, value| {
        let mut form = charge_form("pay_1", "pm_card_visa", "automatic").to_vec();
        form.retain(|(n, _)| *n != name);
        form.push((name, value));
        caller.posted("/v1/payment_intents", "pay_1", &form).await
    };
    assert_eq!(
        charge("captureMethod", "manual").await.text("error.code"),
        "parameter_unknown"
    );
    assert_eq!(
        charge("amount", "0").await.text("error.code"),
        "parameter_invalid_integer"
    );
    assert_eq!(
        charge("amount", "100000000").await.text("error.code"),
        "amount_too_large"
    );
    assert_eq!(
        charge("amount", "").await.text("error.code"),
        "parameter_invalid_empty"
    );
    assert_eq!(
        charge("currency", "USD").await.text("error.param"),
        "currency"
    );
    assert_eq!(
        charge("payment_method", "pm_none").await.text("error.code"),
        "resource_missing"
    );
    assert_eq!(caller.get("/v1/charges", &[]).await.status, 404);
    assert_eq!(
        gateway.calls(Endpoint::Charge).executed,
        1,
        "only a missing card is found by executing"
    );
}

#[tokio::test]
async fn requests_are_remembered_as_they_came() {
    let gateway = TestGateway::start();
    Caller::of(&gateway).paid("pay_1").await;
    let requests = gateway.requests(Endpoint::Charge);
    assert_eq!(requests[0].idempotency_key.as_deref(), Some("pay_1"));
    assert_eq!(
        (requests[0].path.as_str(), requests[0].param("amount")),
        ("/v1/payment_intents", Some("5000"))
    );
}
