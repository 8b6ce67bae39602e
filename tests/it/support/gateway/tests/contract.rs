//! The gateway accepts only what Stripe publishes.

use serde_json::json;

use super::super::{Endpoint, SECRET_KEY, TestGateway};
use super::{Caller, charge_form, error};

#[tokio::test]
async fn what_the_contract_does_not_have_is_refused_in_stripes_words() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let rows = [
        // The parameter that older versions had, and that this one has no longer.
        ("payment_method_types[]", "card", "parameter_unknown"),
        ("metadata", "x", ""),
        ("capture_method", "by_hand", ""),
        ("automatic_payment_methods[enabled]", "yes", ""),
        ("amount", "many", "parameter_invalid_integer"),
        ("description", "", "parameter_invalid_empty"),
        ("allowed_payment_method_types[]", "cards", ""),
        ("expand[first]", "payment_method", "parameter_unknown"),
    ];
    for (name, value, code) in rows {
        let mut form = charge_form("pay_1", "pm_card_visa", "automatic").to_vec();
        form.retain(|(given, _)| *given != name);
        form.push((name, value));
        let answer = caller.posted("/v1/payment_intents", "pay_1", &form).await;
        assert_eq!(
            answer.error(),
            error(400, "invalid_request_error", code),
            "{name}"
        );
        assert_eq!(answer.text("error.param"), name);
        if code == "parameter_unknown" {
            let message = format!("Received unknown parameter: {name}");
            assert_eq!(answer.text("error.message"), message);
        }
    }
    for missing in ["amount", "currency", "automatic_payment_methods[enabled]"] {
        let mut form = charge_form("pay_1", "pm_card_visa", "automatic").to_vec();
        form.retain(|(given, _)| *given != missing);
        let answer = caller.posted("/v1/payment_intents", "pay_1", &form).await;
        let expected = error(400, "invalid_request_error", "parameter_missing");
        assert_eq!(answer.error(), expected, "{missing}");
        assert_eq!(answer.text("error.param"), missing);
    }
    assert_eq!(gateway.calls(Endpoint::Charge).executed, 0);
}

#[tokio::test]
async fn another_version_or_none_is_refused() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    for version in [None, Some("2024-06-20"), Some("")] {
        let url = format!("{}/v1/payment_intents", gateway.url());
        let mut request = caller.http.get(url).bearer_auth(SECRET_KEY);
        if let Some(version) = version {
            request = request.header("Stripe-Version", version);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 400, "{version:?}");
    }
}

#[tokio::test]
async fn each_account_has_its_own_objects_and_keys() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let form = charge_form("pay_1", "pm_card_visa", "automatic");
    let mut ids = Vec::new();
    for account in ["acct_1", "acct_2"] {
        let request = caller.post("/v1/payment_intents", "pay_1", &form);
        let answer = request.header("Stripe-Account", account).send().await;
        let answer = super::Answer::of(answer.expect("an answer")).await;
        assert_eq!((answer.status, answer.replayed), (200, false));
        ids.push(answer.text("id"));
    }
    // The key's own account has none of them.
    let none = caller.get("/v1/payment_intents", &[]).await.json();
    assert_eq!(none["data"], json!([]));
    let path = format!("/v1/payment_intents/{}", ids[0]);
    assert_eq!(caller.get(&path, &[]).await.status, 404);
    let stranger = caller.post("/v1/payment_intents", "k", &form);
    let answer = stranger.header("Stripe-Account", "nobody").send().await;
    assert_eq!(answer.expect("an answer").status(), 403);
}

#[tokio::test]
async fn intents_are_listed_newest_first_by_their_time() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let old = caller.paid("pay_1").await;
    gateway.age(std::time::Duration::from_secs(3600));
    let new = [caller.paid("pay_2").await, caller.paid("pay_3").await];
    let list = async |query: &[(&str, &str)]| {
        let answer = caller.get("/v1/payment_intents", query).await.json();
        let ids = answer["data"].as_array().expect("a list").iter();
        let ids: Vec<_> = ids.map(|intent| intent["id"].clone()).collect();
        (ids, answer["has_more"].clone())
    };
    let all = list(&[]).await;
    assert_eq!(
        all,
        (vec![json!(new[1]), json!(new[0]), json!(old)], json!(false))
    );
    let minute_ago = (chrono::Utc::now().timestamp() - 60).to_string();
    let late = list(&[("created[gte]", &minute_ago), ("limit", "1")]).await;
    assert_eq!(late, (vec![json!(new[1])], json!(true)));
    let early = list(&[("created[lte]", &minute_ago)]).await;
    assert_eq!(early, (vec![json!(old)], json!(false)));
    let rest = list(&[("starting_after", &new[0])]).await;
    assert_eq!(rest, (vec![json!(old)], json!(false)));
}

#[tokio::test]
async fn a_refund_may_take_its_time_and_fail() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let intent = caller
        .charge("pay_1", "pm_card_refundFail", "automatic")
        .await;
    let form = [
        ("payment_intent", intent.text("id")),
        ("amount", "5000".into()),
    ];
    let form = form.each_ref().map(|(name, value)| (*name, value.as_str()));
    let refund = caller.posted("/v1/refunds", "ref_1", &form).await;
    assert_eq!(refund.text("status"), "pending");
    assert_eq!(gateway.ledger().only_charge("pay_1").amount_refunded, 5000);
    gateway.end_refunds(false);
    let path = format!("/v1/refunds/{}", refund.text("id"));
    let failed = caller.get(&path, &[]).await;
    assert_eq!(failed.text("status"), "failed");
    let ledger = gateway.ledger();
    assert_eq!(ledger.only_charge("pay_1").amount_refunded, 0);
    ledger.assert_nothing_twice();
}

#[tokio::test]
async fn amounts_are_those_that_stripe_takes() {
    let gateway = TestGateway::start();
    let caller = Caller::of(&gateway);
    let rows = [
        ("usd", "49", "amount_too_small"),
        ("usd", "50", ""),
        ("kwd", "1235", "invalid_charge_amount"),
        ("kwd", "1230", ""),
        ("isk", "550", "invalid_charge_amount"),
        ("isk", "500", ""),
    ];
    for (currency, amount, code) in rows {
        let mut form = charge_form("pay_1", "pm_card_visa", "automatic");
        form[0].1 = amount;
        form[1].1 = currency;
        let answer = caller.posted("/v1/payment_intents", "", &form).await;
        assert_eq!(answer.text("error.code"), code, "{amount} {currency}");
    }
}
