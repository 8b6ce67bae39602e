//! What is under way when a merchant leaves: it ends first, or the merchant stays.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{SecondDatabase, age_moves, moved, mover, rows_of, run_beside, sign, state, triggers};
use crate::support::process::error_line;
use crate::support::scripted::{ScriptedGateway, Turn};
use crate::support::service::{Service, Setup};

/// Its gateway holds the first charge.
async fn holding(db: &PgConnectOptions) -> (Service, Arc<ScriptedGateway>) {
    let gateway = ScriptedGateway::new(&[Turn::Hold]);
    let timeout = std::time::Duration::from_secs(60);
    let service = Service::start_on(db, Setup::default(), gateway.clone(), timeout).await;
    sign(&service.pool).await;
    (service, gateway)
}

async fn until_state(service: &Service, merchant: &str, wanted: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while state(&service.pool, merchant).await != wanted {
        assert!(std::time::Instant::now() < deadline, "it is never {wanted}");
        crate::support::pause().await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_merchant_whose_work_does_not_end_stays_where_it_is(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (service, gateway) = holding(&db).await;
    let other = SecondDatabase::create(&db).await;
    let there = other.pool().await;
    sign(&there).await;
    let acme = service.merchant("acme").await;
    let held = tokio::spawn({
        let request = acme.pay("10").key("held");
        async move { request.send().await }
    });
    service.until_unsettled(1).await;

    let mut command = mover(&db, &other.options, "acme");
    command.args(["--wait", "10ms"]);
    let refused = run_beside(command).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for part in [
        "1 keys of merchant acme",
        "--wait",
        "payonce idempotency-keys list --state processing",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(state(&service.pool, "acme").await, "-");
    assert_eq!(state(&there, "acme").await, "", "nothing arrived");
    for pool in [&service.pool, &there] {
        assert_eq!(triggers(pool).await, [""; 0]);
    }

    gateway.release();
    assert_eq!(held.await.expect("no panic").status, 201);
    // The node's memory of the move ends by itself.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while acme.pay("10").key("after").send().await.status != 201 {
        assert!(
            std::time::Instant::now() < deadline,
            "it is never served again"
        );
        crate::support::pause().await;
    }
    there.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_is_under_way_ends_before_the_rows_are_copied(_: PgPoolOptions, db: PgConnectOptions) {
    let (service, gateway) = holding(&db).await;
    let other = SecondDatabase::create(&db).await;
    let there = other.pool().await;
    sign(&there).await;
    let acme = service.merchant("acme").await;
    let held = tokio::spawn({
        let request = acme.pay("10").key("held");
        async move { request.send().await }
    });
    service.until_unsettled(1).await;
    let moving = tokio::spawn(moved(mover(&db, &other.options, "acme")));
    until_state(&service, "acme", "LEAVING").await;
    age_moves(&service.pool).await;

    // New work is refused, at the latest once the node has asked anew who the merchant is; reads go on.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    for number in 0.. {
        let new = acme.pay("10").key(&format!("new-{number}")).send().await;
        if new.status == 503 {
            new.assert_problem(503, "database-unavailable", "same-key");
            assert!(new.text("detail").contains("is being moved to"), "{new:?}");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "it is never refused");
    }
    assert_eq!(acme.get("/v1/payments").await.status, 200);
    assert!(!moving.is_finished(), "it waits");

    gateway.release();
    let answer = held.await.expect("no panic");
    assert_eq!(answer.status, 201);
    let report = moving.await.expect("no panic");
    assert!(report["rows"]["payments"].as_i64() >= Some(1));
    assert_eq!(
        rows_of(&service.pool, "acme").await,
        rows_of(&there, "acme").await
    );

    let two = Service::start(&other.options).await;
    let replay = acme.at(&two).pay("10").key("held").send().await;
    assert!(
        replay.replayed() && replay.bytes == answer.bytes,
        "{replay:?}"
    );
    assert_eq!(two.gateway.charges(), 0);
    there.close().await;
}

/// A second run waits for nobody, and does not take a first one's merchant.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn two_moves_at_once_do_not_meet(_: PgPoolOptions, db: PgConnectOptions) {
    let (service, gateway) = holding(&db).await;
    let other = SecondDatabase::create(&db).await;
    let there = other.pool().await;
    sign(&there).await;
    let acme = service.merchant("acme").await;
    service.merchant("beta").await;
    let held = tokio::spawn(async move { acme.pay("10").key("held").send().await });
    service.until_unsettled(1).await;
    let moving = tokio::spawn(moved(mover(&db, &other.options, "acme")));
    until_state(&service, "acme", "LEAVING").await;
    for (from, to, merchant) in [
        (&db, &other.options, "acme"),
        (&db, &other.options, "beta"),
        (&other.options, &db, "beta"),
    ] {
        let refused = run_beside(mover(from, to, merchant)).await;
        assert_eq!(refused.status.code(), Some(1));
        let said = error_line(&refused);
        assert!(said.contains("another move is at work"), "{said}");
    }
    gateway.release();
    assert_eq!(held.await.expect("no panic").status, 201);
    moving.await.expect("no panic");
    there.close().await;
}
