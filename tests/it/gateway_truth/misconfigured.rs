//! A gateway that refuses this service, not the payer: nothing is stored as a decline, and nothing is charged twice.

use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::support::gateway::{Endpoint, Fault};
use crate::support::process::{json as printed, program, run};

/// The requests of an outcome that the process has counted.
async fn counted(merchant: &Merchant, operation: &str, outcome: &str) -> u64 {
    let labels = format!(r#"{{gateway="STRIPE",operation="{operation}",outcome="{outcome}"}} "#);
    let answer = merchant.get("/metrics").await;
    let metrics = String::from_utf8_lossy(&answer.bytes).into_owned();
    let lines = metrics.lines();
    let value = lines
        .filter_map(|line| line.strip_prefix("payonce_gateway_requests_total"))
        .find_map(|line| line.strip_prefix(&labels));
    value
        .expect("it is counted from the start")
        .parse()
        .expect("a number")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refusal_of_the_service_stores_nothing_and_the_same_key_pays_later(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    for fault in Fault::MISCONFIGURED {
        let name = format!("{fault:?}");
        // One is refused before its claim, the other when its claim is made.
        let (raw, token) = (acme.pay("10").key(&name), visa(&acme, "10", &(name + "-t")));
        for (operation, request) in [("tokenize", &raw), ("charge", &token)] {
            let rows = service.count("payments").await;
            let before = counted(&acme, operation, "misconfigured").await;
            gateway.chaos_of(1, 100, &[*fault]);
            let refused = request.send().await;
            refused.assert_problem(503, "gateway-misconfigured", "same-key");
            assert_eq!(refused.text("charged"), "no");
            assert!(!refused.text("detail").contains("401"), "{refused:?}");
            // Other tests of this process may count here, too.
            assert!(counted(&acme, operation, "misconfigured").await > before);
            for (table, expected) in [("payments", rows), ("idempotency_keys", rows)] {
                assert_eq!(service.count(table).await, expected, "{table}");
            }
            let ready = acme.get("/readyz").await;
            assert_eq!(ready.status, 200);
            assert_eq!(ready.text("gateway"), "misconfigured");
            gateway.calm();
            let answer = request.send().await;
            assert_eq!((answer.status.as_u16(), answer.replayed()), (201, false));
            gateway.ledger().only_charge(&answer.text("id"));
            assert_eq!(acme.get("/readyz").await.text("gateway"), "ok");
        }
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn after_an_attempt_that_may_have_charged_the_claim_stays(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, HASTY).await;
    let acme = service.merchant("acme").await;
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let request = visa(&acme, "10", "k");
    let first = request.send().await;
    assert_eq!(first.status, 202);
    gateway.calm();
    gateway.chaos_of(1, 100, &[Fault::WrongSecret]);
    end_leases(&service.pool).await;
    let refused = request.send().await;
    refused.assert_problem(503, "gateway-misconfigured", "same-key");
    assert_eq!(refused.text("charged"), "unknown");
    assert_eq!(service.count("unsettled_keys").await, 1);
    let summary = recover(&service).await;
    assert_eq!((summary.found, summary.misconfigured), (1, 1));
    assert_eq!(service.count("unsettled_keys").await, 1);
    gateway.calm();
    assert_eq!(recover(&service).await.resolved, 1);
    let paid = request.send().await;
    assert_eq!((paid.status.as_u16(), paid.replayed()), (201, true));
    assert_eq!(paid.text("id"), first.text("id"));
    gateway.ledger().only_charge(&paid.text("id"));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payment_goes_on_at_its_own_gateway_or_not_at_all(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let stripe = node(&db, &gateway, AMPLE).await;
    let elsewhere = Service::start_with(&db, no_recovery()).await;
    let acme = stripe.merchant("acme").await;
    let there = acme.at(&elsewhere);
    let (hold, charge) = (held(&acme, "10", "h").await, paid(&acme, "10", "p").await);
    let operations = [(&hold, "capture"), (&hold, "cancel"), (&charge, "refunds")];
    for (id, what) in operations {
        let before = shown(&acme, id).await.bytes;
        let refused = on(&there, id, what, what, json!({})).send().await;
        refused.assert_problem(503, "gateway-misconfigured", "same-key");
        assert_eq!(refused.text("charged"), "no");
        assert_eq!(shown(&acme, id).await.bytes, before, "{what}");
    }
    assert_eq!(stripe.count("idempotency_keys").await, 2);
    assert_eq!(stripe.count("refunds").await, 0);
    assert_eq!(stripe.count("unsettled_keys").await, 0);
    assert_eq!(elsewhere.gateway.asked(), Vec::<String>::new());
    for (id, what) in [(&hold, "capture"), (&charge, "refunds")] {
        let done = on(&acme, id, what, what, json!({})).send().await;
        assert!(done.status.is_success() && !done.replayed(), "{done:?}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_node_without_its_gateway_leaves_a_claim_alone(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let stripe = node(&db, &gateway, HASTY).await;
    let elsewhere = Service::start_with(&db, no_recovery()).await;
    let acme = stripe.merchant("acme").await;
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let request = visa(&acme, "10", "k");
    assert_eq!(request.send().await.status, 202);
    gateway.calm();
    end_leases(&stripe.pool).await;
    let refused = request.clone().at(&elsewhere.url).send().await;
    refused.assert_problem(503, "gateway-misconfigured", "same-key");
    assert_eq!(refused.text("charged"), "unknown");
    assert_eq!(recover(&elsewhere).await.misconfigured, 1);
    assert_eq!(attempts(&stripe).await, [1]);
    assert_eq!(elsewhere.gateway.asked(), Vec::<String>::new());
    let paid = request.send().await;
    assert_eq!(paid.status, 201);
    gateway.ledger().only_charge(&paid.text("id"));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn recover_by_hand_needs_the_gateway_of_the_claim(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, HASTY).await;
    let acme = service.merchant("acme").await;
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let request = visa(&acme, "10", "k");
    assert_eq!(request.send().await.status, 202);
    gateway.calm();
    end_leases(&service.pool).await;
    let recover = || {
        let mut command = program("payonce", &db);
        command
            .args(["recover", "--once"])
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests");
        command
    };
    let summary = printed(&run(&mut recover()));
    assert_eq!(
        (&summary["found"], &summary["misconfigured"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(attempts(&service).await, [1]);
    // Its gateway is there, though it is not the one for new payments.
    let summary = printed(&run(recover()
        .env("PAYONCE_STRIPE_API_BASE", gateway.url())
        .env("PAYONCE_STRIPE_SECRET_KEY", SECRET_KEY)));
    assert_eq!(
        (&summary["found"], &summary["resolved"]),
        (&json!(1), &json!(1))
    );
    let paid = request.send().await;
    assert_eq!((paid.status.as_u16(), paid.replayed()), (201, true));
    gateway.ledger().only_charge(&paid.text("id"));
}
