//! The needs of real accounts: merchants' own accounts, saved cards, absent payers, and no raw cards.

use payonce::http::CardIntake;
use payonce::merchants::Merchants;
use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::support::gateway::Endpoint;
use crate::support::service::payment;

async fn set_account(service: &Service, account: Option<&str>) {
    let merchants = Merchants::new(service.pool.clone());
    let set = merchants.set_stripe_account("acme", account).await;
    set.expect("the account is set");
}

fn accounts(gateway: &TestGateway, endpoint: Endpoint) -> Vec<String> {
    let requests = gateway.requests(endpoint).into_iter();
    requests.map(|request| request.account).collect()
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payment_stays_with_the_account_that_it_began_with(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let before = node(&db, &gateway, AMPLE).await;
    let acme = before.merchant("acme").await;
    set_account(&before, Some("acct_1")).await;
    let mut body = payment("10");
    body["captureMethod"] = json!("MANUAL");
    let made = acme.post("/v1/payments", body).key("p").send().await;
    assert_eq!(made.text("state"), "AUTHORIZED", "{made:?}");
    let id = made.text("id");
    set_account(&before, Some("acct_2")).await;
    // A node that remembers nothing of the first account.
    let after = node(&db, &gateway, AMPLE).await;
    let acme = acme.at(&after);
    for what in ["capture", "refunds"] {
        let done = on(&acme, &id, what, what, json!({})).send().await;
        assert!(done.status.is_success(), "{done:?}");
    }
    paid(&acme, "10", "next").await;
    assert_eq!(accounts(&gateway, Endpoint::Tokenize), ["acct_1"]);
    assert_eq!(accounts(&gateway, Endpoint::Charge), ["acct_1", "acct_2"]);
    assert_eq!(accounts(&gateway, Endpoint::Capture), ["acct_1"]);
    assert_eq!(accounts(&gateway, Endpoint::Refund), ["acct_1"]);
    gateway.ledger().assert_nothing_twice();
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn raw_cards_are_refused_where_their_intake_is_off(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let setup = Setup {
        card_intake: CardIntake::Off,
        ..no_recovery()
    };
    let service = node_with(&db, setup, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let refused = acme.pay("10").key("k").send().await;
    refused.assert_problem(422, "validation-failed", "fix-request");
    assert_eq!(
        refused.json()["errors"][0]["field"],
        "paymentMethod.details"
    );
    service.assert_no_rows("a card").await;
    assert_eq!(gateway.calls(Endpoint::Tokenize).received, 0);
    // The key is still good.
    paid(&acme, "10", "k").await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_saved_card_is_charged_for_its_customer_while_the_payer_is_away(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let saved = |token: &str| {
        let mut body = by_token("10", token);
        body["customer"] = json!({"gatewayCustomerId": "cus_1"});
        body["offSession"] = json!(true);
        body["description"] = json!("Two chairs");
        body
    };
    let post = |body: Value, key: &str| acme.post("/v1/payments", body).key(key);
    let paid = post(saved("pm_card_visa"), "k").send().await;
    assert_eq!(paid.status, 201);
    assert_eq!(paid.json()["customer"]["gatewayCustomerId"], "cus_1");
    let (id, request) = (paid.text("id"), &gateway.requests(Endpoint::Charge)[0]);
    let expected = [
        ("customer", "cus_1"),
        ("off_session", "true"),
        ("description", "Two chairs"),
        ("metadata[merchant_id]", "acme"),
        ("metadata[payment_id]", &id),
    ];
    for (name, value) in expected {
        assert_eq!(request.param(name), Some(value), "{name}");
    }
    // They are part of the fingerprint.
    for field in ["offSession", "customer"] {
        let mut other = saved("pm_card_visa");
        other.as_object_mut().expect("an object").remove(field);
        let reused = post(other, "k").send().await;
        reused.assert_problem(422, "idempotency-key-reused", "no");
    }
    // The payer cannot act, so this is a decline.
    let body = saved("pm_card_authenticationRequired");
    let declined = post(body, "away").send().await;
    declined.assert_problem(402, "payment-declined", "new-key");
    assert_eq!(declined.text("declineCode"), "authentication_required");
    gateway.ledger().assert_nothing_twice();
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_advice_of_a_decline_is_shown(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let body = by_token("10", "pm_card_chargeDeclinedStolenCard");
    let declined = acme.post("/v1/payments", body).key("k").send().await;
    declined.assert_problem(402, "payment-declined", "new-key");
    assert_eq!(declined.text("adviceCode"), "do_not_try_again");
    assert_eq!(declined.text("charged"), "no");
    let payment = shown(&acme, &declined.text("paymentId")).await.json();
    let failure = &payment["failure"];
    assert_eq!(failure["code"], "stolen_card");
    assert_eq!(failure["adviceCode"], "do_not_try_again");
    assert_eq!(failure["networkAdviceCode"], "01");
    assert_eq!(failure["networkDeclineCode"], "43");
}
