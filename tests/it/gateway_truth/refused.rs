//! A request that the gateway finds wrong is reported, not stored, and leaves the key usable.

use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::support::gateway::{Endpoint, Fault};

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refused_request_leaves_its_key_good_for_the_corrected_one(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let mut stranger = by_token("10", "pm_card_visa");
    stranger["customer"] = json!({"gatewayCustomerId": "nobody"});
    let wrong = [
        (
            by_token("0.49", "pm_card_visa"),
            "amount_too_small",
            "amount",
        ),
        (
            by_token("10", "pm_card_unheard_of"),
            "resource_missing",
            "paymentMethod.token",
        ),
        (stranger, "resource_missing", "customer.gatewayCustomerId"),
    ];
    for (number, (body, code, param)) in wrong.into_iter().enumerate() {
        let key = format!("k{number}");
        let refused = acme.post("/v1/payments", body).key(&key).send().await;
        refused.assert_problem(422, "gateway-refused", "fix-request");
        assert_eq!(refused.text("gatewayCode"), code);
        assert_eq!(refused.text("param"), param);
        assert_eq!(refused.text("charged"), "no");
        assert_eq!(service.count("unsettled_keys").await, 0);
        let id = paid(&acme, "10", &key).await;
        gateway.ledger().only_charge(&id);
    }
    assert_eq!(service.count("payments").await, 3);
    assert_eq!(gateway.ledger().charges.len(), 3);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn recovery_gives_a_refused_claim_back(_: PgPoolOptions, db: PgConnectOptions) {
    // Its process died between the claim and the call.
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, HASTY).await;
    let acme = service.merchant("acme").await;
    gateway.script([(Endpoint::Charge, Fault::DropBefore); 30]);
    let body = by_token("10", "pm_card_unheard_of");
    let request = acme.post("/v1/payments", body).key("k");
    assert_eq!(request.send().await.status, 202);
    gateway.calm();
    let summary = recover(&service).await;
    assert_eq!((summary.found, summary.resolved), (1, 1));
    service.assert_no_rows("a refusal").await;
    let refused = request.send().await;
    refused.assert_problem(422, "gateway-refused", "fix-request");
}
