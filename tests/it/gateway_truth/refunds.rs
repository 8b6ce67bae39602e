//! Refunds that the gateway has accepted and not finished.

use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::support::gateway::{Endpoint, Fault};
use crate::support::rows::make_looks_due;

/// Makes the next check of each pending refund due.
async fn look(service: &Service) -> u64 {
    make_looks_due(&service.pool).await;
    service.payments.follow_refunds().await.expect("looks")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_pending_refund_succeeds_later(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    gateway.delay_refunds();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let id = paid(&acme, "10", "p").await;
    let request = on(&acme, &id, "refunds", "r", json!({"amount": "4"}));
    let refund = request.send().await;
    assert_eq!(
        (refund.status.as_u16(), refund.text("state")),
        (201, "PENDING".into())
    );
    let payment = shown(&acme, &id).await;
    assert_eq!(payment.text("state"), "PARTIALLY_REFUNDED");
    assert_eq!(payment.text("amountRefunded"), "4.00");
    assert_eq!(look(&service).await, 0, "it is not finished yet");
    gateway.end_refunds(true);
    assert_eq!(look(&service).await, 1);
    let path = format!("/v1/refunds/{}", refund.text("id"));
    assert_eq!(acme.get(&path).await.text("state"), "SUCCESS");
    assert_eq!(shown(&acme, &id).await.text("amountRefunded"), "4.00");
    // The key's answer is what it was.
    assert_eq!(request.send().await.bytes, refund.bytes);
    assert_eq!(look(&service).await, 0);
    gateway.ledger().assert_nothing_twice();
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_pending_refund_that_fails_gives_its_amount_back(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    gateway.delay_refunds();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let id = paid(&acme, "10", "p").await;
    let refund = on(&acme, &id, "refunds", "r", json!({})).send().await;
    assert_eq!(refund.text("state"), "PENDING");
    assert_eq!(shown(&acme, &id).await.text("state"), "REFUNDED");
    gateway.end_refunds(false);
    assert_eq!(look(&service).await, 1);
    let path = format!("/v1/refunds/{}", refund.text("id"));
    assert_eq!(acme.get(&path).await.text("state"), "FAILED");
    let payment = shown(&acme, &id).await;
    assert_eq!(payment.text("state"), "SUCCESS");
    assert_eq!(payment.text("amountRefunded"), "0.00");
    // The whole amount can be refunded again.
    let again = on(&acme, &id, "refunds", "r2", json!({})).send().await;
    assert_eq!(
        (again.status.as_u16(), again.text("amount")),
        (201, "10.00".into())
    );
    gateway.end_refunds(true);
    assert_eq!(look(&service).await, 1);
    assert_eq!(shown(&acme, &id).await.text("state"), "REFUNDED");
    gateway.ledger().assert_nothing_twice();
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_pauses_between_looks_grow_and_a_look_waits_for_its_time(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    gateway.delay_refunds();
    let service = node(&db, &gateway, AMPLE).await;
    let acme = service.merchant("acme").await;
    let id = paid(&acme, "10", "p").await;
    on(&acme, &id, "refunds", "r", json!({})).send().await;
    let asked = || gateway.calls(Endpoint::ListRefunds).received;
    let mut pauses = Vec::new();
    for _ in 0..14 {
        assert_eq!(look(&service).await, 0);
        let before = asked();
        let pause: f64 = sqlx::query_scalar(
            "select extract(epoch from next_look_at - now())::float8 from refunds",
        )
        .fetch_one(&service.pool)
        .await
        .expect("a pause");
        pauses.push(pause);
        if pause > 60.0 {
            service.payments.follow_refunds().await.expect("looks");
            assert_eq!(asked(), before, "its time has not come");
        }
    }
    assert_eq!(asked(), 14);
    for (look, pause) in pauses.iter().enumerate() {
        let most = 2_f64
            .powi(i32::try_from(look).expect("few") + 2)
            .min(3600.0);
        // Less the time that has passed since.
        assert!(*pause <= most, "look {look}: {pause} s of {most}");
        if most > 60.0 {
            assert!(*pause > most - 60.0, "look {look}: {pause} s of {most}");
        }
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_process_with_another_gateway_leaves_the_looks_to_others(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    gateway.delay_refunds();
    let service = node(&db, &gateway, AMPLE).await;
    let stranger = Service::start_with(&db, no_recovery()).await;
    let acme = service.merchant("acme").await;
    let id = paid(&acme, "10", "p").await;
    on(&acme, &id, "refunds", "r", json!({})).send().await;
    gateway.end_refunds(true);
    execute(&service.pool, "update refunds set next_look_at = now()").await;
    let ended = stranger.payments.follow_refunds().await.expect("looks");
    assert_eq!(ended, 0);
    let ended = service.payments.follow_refunds().await.expect("looks");
    assert_eq!(ended, 1, "the stranger took the look");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn two_nodes_look_at_each_refund_once(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = TestGateway::start();
    gateway.delay_refunds();
    let (one, other) = (
        node(&db, &gateway, AMPLE).await,
        node(&db, &gateway, AMPLE).await,
    );
    let acme = one.merchant("acme").await;
    for number in 0..8 {
        let id = paid(&acme, "10", &format!("p{number}")).await;
        let refund = on(&acme, &id, "refunds", &format!("r{number}"), json!({}));
        assert_eq!(refund.send().await.text("state"), "PENDING");
    }
    let asked = || gateway.calls(Endpoint::ListRefunds).received;
    for round in 1..=5 {
        // A pause of at least a minute, so that there are never two checks in one round, even on a slow machine.
        execute(
            &one.pool,
            "update refunds set next_look_at = now(), looks = looks + 5",
        )
        .await;
        let (here, there) = tokio::join!(
            one.payments.follow_refunds(),
            other.payments.follow_refunds()
        );
        assert_eq!((here.expect("looks"), there.expect("looks")), (0, 0));
        assert_eq!(asked(), 8 * round, "round {round}");
    }
    gateway.end_refunds(false);
    execute(&one.pool, "update refunds set next_look_at = now()").await;
    let (here, there) = tokio::join!(
        one.payments.follow_refunds(),
        other.payments.follow_refunds()
    );
    assert_eq!(here.expect("looks") + there.expect("looks"), 8);
    let given_back =
        "select count(*) from payments where amount_refunded_minor = 0 and state = 'SUCCESS'";
    let given_back: i64 = sqlx::query_scalar(given_back)
        .fetch_one(&one.pool)
        .await
        .expect("a count");
    assert_eq!(given_back, 8);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_look_that_outlives_its_pause_ends_no_refund_twice(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    // The gate is open for as long as the test needs.
    let (slow, quick) = (
        node(&db, &gateway, Duration::from_secs(60)).await,
        node(&db, &gateway, AMPLE).await,
    );
    let acme = quick.merchant("acme").await;
    let id = paid(&acme, "10", "p").await;
    // An amount that was returned to the payment must not be returned a second time.
    let kept = on(&acme, &id, "refunds", "kept", json!({"amount": "4"}));
    assert_eq!(kept.send().await.text("state"), "SUCCESS");
    gateway.delay_refunds();
    let failing = on(&acme, &id, "refunds", "failing", json!({"amount": "4"}));
    assert_eq!(failing.send().await.text("state"), "PENDING");
    assert_eq!(shown(&acme, &id).await.text("amountRefunded"), "8.00");
    gateway.end_refunds(false);
    let looks = gateway.calls(Endpoint::ListRefunds).received;
    gateway.script([(Endpoint::ListRefunds, Fault::Hold)]);
    make_looks_due(&quick.pool).await;
    let held = tokio::spawn({
        let payments = slow.payments.clone();
        async move { payments.follow_refunds().await }
    });
    gateway
        .until_executed(Endpoint::ListRefunds, looks + 1)
        .await;
    assert_eq!(look(&quick).await, 1);
    let ended = shown(&acme, &id).await;
    assert_eq!(ended.text("amountRefunded"), "4.00");
    gateway.release();
    let held = held.await.expect("no panic").expect("looks");
    assert_eq!(held, 0, "the other node ended it");
    assert_eq!(shown(&acme, &id).await.bytes, ended.bytes);
    gateway.ledger().assert_nothing_twice();
}
