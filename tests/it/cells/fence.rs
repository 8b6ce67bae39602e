//! The fence: nobody writes for a merchant that is moving or has moved, however late they come.

#[cfg(feature = "failpoints")]
use nix::sys::signal::Signal;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::{SecondDatabase, age_moves, moved, mover, run_beside, run_on, sign, state, triggers};
#[cfg(feature = "failpoints")]
use crate::support::gateway::TestGateway;
#[cfg(feature = "failpoints")]
use crate::support::process::{Server, merchant};
use crate::support::process::{json, program};
use crate::support::service::{Service, count};

/// The error's code, or nothing if it was carried out.
async fn code_of(pool: &PgPool, sql: &str) -> String {
    let ran = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await;
    let error = ran.err();
    let error = error.as_ref().and_then(sqlx::Error::as_database_error);
    let code = error.and_then(sqlx::error::DatabaseError::code);
    code.unwrap_or_default().into_owned()
}

/// A node stops before its claim is committed, and goes on when the merchant has moved.
#[cfg(feature = "failpoints")]
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_paused_nodes_late_claim_is_refused_and_pays_nothing(
    pool: PgPoolOptions,
    db: PgConnectOptions,
) {
    let first = pool.connect_with(db.clone()).await.expect("a pool");
    let gateway = TestGateway::start();
    let other = SecondDatabase::create(&db).await;
    let second = other.pool().await;
    let stopping = [("FAILPOINTS", "claim-before-commit=1*return(stop)")];
    let node = Server::start_on(&gateway.url(), &db, &stopping);
    let there = Server::start_on(&gateway.url(), &other.options, &[]);
    let acme = merchant(&db, &node.url, "acme");
    let late = tokio::spawn({
        let request = acme.pay("10").key("late");
        async move { request.send().await }
    });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !node.is_stopped() {
        assert!(std::time::Instant::now() < deadline, "it does not stop");
        crate::support::pause().await;
    }

    moved(mover(&db, &other.options, "acme")).await;
    node.signal(Signal::SIGCONT);
    let late = late.await.expect("no panic");
    late.assert_problem(503, "database-unavailable", "same-key");
    assert!(late.text("detail").contains("is being moved"), "{late:?}");
    for table in ["idempotency_keys", "payments", "unsettled_keys"] {
        assert_eq!(count(&first, table).await, 0, "{table}");
    }
    assert!(!node.log().contains("\"ERROR\""), "{}", node.log());

    let paid = acme.pay("10").key("late").at(&there.url).send().await;
    assert_eq!(paid.status, 201, "{paid:?}");
    assert_eq!(gateway.ledger().charges.len(), 1);
    assert_eq!(count(&second, "payments").await, 1);
    for pool in [first, second] {
        pool.close().await;
    }
}

/// A claim that is not committed yet when new ones are refused counts as under way.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_claim_that_is_about_to_commit_is_waited_for(_: PgPoolOptions, db: PgConnectOptions) {
    let here = Service::start(&db).await;
    let other = SecondDatabase::create(&db).await;
    let there = other.pool().await;
    sign(&here.pool).await;
    sign(&there).await;
    here.merchant("acme").await;
    let mut claim = PgConnection::connect_with(&db).await.expect("a connection");
    sqlx::raw_sql(
        "begin; insert into unsettled_keys (merchant_id, operation, key, claimed_at) \
         values ('acme', 'create_payment', 'k', now())",
    )
    .execute(&mut claim)
    .await
    .expect("a claim");

    let moving = tokio::spawn(moved(mover(&db, &other.options, "acme")));
    let waits = "select exists (select from pg_stat_activity \
         where datname = current_database() and wait_event_type = 'Lock' and query like 'lock table unsettled_keys %')";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !sqlx::query_scalar::<_, bool>(waits)
        .fetch_one(&here.pool)
        .await
        .expect("an answer")
    {
        assert!(
            std::time::Instant::now() < deadline,
            "nobody waits for the claim"
        );
        age_moves(&here.pool).await;
        crate::support::pause().await;
    }
    sqlx::raw_sql("commit")
        .execute(&mut claim)
        .await
        .expect("committed");
    // The triggers are made now, and there is a key at work.
    while triggers(&here.pool).await.is_empty() {
        assert!(std::time::Instant::now() < deadline, "nothing is refused");
        crate::support::pause().await;
    }
    assert_eq!(state(&here.pool, "acme").await, "LEAVING");
    assert!(!moving.is_finished());
    run_on(&db, "delete from unsettled_keys").await;
    moving.await.expect("no panic");
    drop(claim.close().await);
    there.close().await;
}

/// The merchant's rows, in tables and by statements of every kind that a node, an operator or the command line writes.
const WRITES: [&str; 7] = [
    "insert into unsettled_keys (merchant_id, operation, key, claimed_at) values ('acme', 'create_payment', 'x', now())",
    "insert into idempotency_keys select (jsonb_populate_record(null::idempotency_keys, to_jsonb(k) || '{\"key\": \"x\"}')).* \
     from idempotency_keys k where merchant_id = 'acme' limit 1",
    "update idempotency_keys set attempt = attempt + 1 where merchant_id = 'acme'",
    "update payments set updated_at = now() where merchant_id = 'acme'",
    "update refunds set looks = looks + 1 where merchant_id = 'acme'",
    "update api_keys set revoked_at = now() where merchant_id = 'acme'",
    "update merchants set name = 'Else' where merchant_id = 'acme'",
];

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn every_write_is_refused_where_the_merchant_was_and_no_others(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let here = Service::start(&db).await;
    let other = SecondDatabase::create(&db).await;
    let there = other.pool().await;
    sign(&here.pool).await;
    sign(&there).await;
    for id in ["acme", "beta"] {
        let merchant = here.merchant(id).await;
        let paid = merchant.pay("10").key("k").send().await;
        let path = format!("/v1/payments/{}/refunds", paid.text("id"));
        let refund = merchant.post(&path, serde_json::json!({"amount": "1"}));
        assert_eq!(refund.key("r").send().await.status, 201);
    }
    // The triggers let the move's own rows through without being fired: each would be remembered until the copy ends.
    run_on(
        &other.options,
        "create or replace function refuse_writes_of_a_moving_merchant() returns trigger language plpgsql as \
         $$ begin raise exception 'fired'; end $$",
    )
    .await;
    moved(mover(&db, &other.options, "acme")).await;
    for write in WRITES {
        assert_eq!(code_of(&here.pool, write).await, "40M01", "{write}");
        let neighbors = write.replace("'acme'", "'beta'");
        assert_eq!(code_of(&here.pool, &neighbors).await, "", "{neighbors}");
        assert_eq!(code_of(&there, write).await, "", "{write}");
    }
    run_on(&db, "delete from unsettled_keys").await;
    // A second merchant is added to what is refused, and the first one stays there.
    moved(mover(&db, &other.options, "beta")).await;
    for id in ["acme", "beta"] {
        for write in WRITES {
            let write = write.replace("'acme'", &format!("'{id}'"));
            // `beta` has the first one's key.
            let write = write.replace("\"x\"", "\"y\"");
            assert_eq!(code_of(&here.pool, &write).await, "40M01", "{write}");
        }
    }
    there.close().await;
}

/// The keys that a merchant left behind are deleted when their time is over, as everybody's.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_keys_that_it_left_behind_are_cleaned_up(_: PgPoolOptions, db: PgConnectOptions) {
    let here = Service::start(&db).await;
    let other = SecondDatabase::create(&db).await;
    let there = other.pool().await;
    sign(&here.pool).await;
    sign(&there).await;
    for id in ["acme", "beta"] {
        let paid = here.merchant(id).await.pay("10").key("k").send().await;
        assert_eq!(paid.status, 201);
    }
    moved(mover(&db, &other.options, "acme")).await;
    run_on(
        &db,
        "begin; set local payonce.moving = 'acme'; \
         update idempotency_keys set expires_at = now() - interval '1 hour' where merchant_id = 'acme'; commit; \
         update idempotency_keys set expires_at = now() - interval '1 hour' where merchant_id = 'beta'",
    )
    .await;
    let cleaned = run_beside(program("payonce-cleanup", &db)).await;
    assert!(cleaned.status.success(), "{cleaned:?}");
    assert_eq!(json(&cleaned)["deleted"], 2);
    assert_eq!(count(&here.pool, "payments").await, 2);
    assert_eq!(count(&there, "idempotency_keys").await, 1);
    there.close().await;
}
