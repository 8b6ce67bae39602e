//! Visible commits are not always durable: with a synchronous standby, a commit whose wait was interrupted is visible, but lost
//! when the standby is promoted. No call and no answer relies on such a commit.

use std::time::{Duration, Instant};

use payonce::database::pool_options;
use payonce::idempotency::{
    Engine, FingerprintSecrets, IdempotencyConfig, IdempotencyKey, Outcome, ScopedKey,
    StoredResponse, Transaction,
};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::support::gateway::{Endpoint, TestGateway};
use crate::support::pair::Pair;
use crate::support::process::{Server, merchant};

/// Only an event that never happens exceeds it.
const PATIENCE: Duration = Duration::from_secs(30);

/// An observer of the primary's sessions.
struct Watch(PgPool);

impl Watch {
    async fn of(database: &PgConnectOptions) -> Self {
        Self(
            PgPool::connect_with(database.clone())
                .await
                .expect("a pool"),
        )
    }

    /// The sessions whose commits wait for a standby.
    async fn waiting(&self) -> Vec<i32> {
        sqlx::query_scalar(
            "select pid from pg_stat_activity where wait_event = 'SyncRep' order by pid",
        )
        .fetch_all(&self.0)
        .await
        .expect("the sessions")
    }

    async fn until_one_waits_besides(&self, known: &[i32]) -> i32 {
        let began = Instant::now();
        loop {
            let waiting = self.waiting().await;
            if let Some(pid) = waiting.into_iter().find(|pid| !known.contains(pid)) {
                return pid;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "no commit waits for the standby"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A wait that has just begun is not interrupted.
    async fn until_it_waited_for_a_while(&self, pid: i32) {
        let waited = "select clock_timestamp() - query_start > interval '100 ms' from pg_stat_activity where pid = $1";
        let began = Instant::now();
        while !sqlx::query_scalar::<_, bool>(waited)
            .bind(pid)
            .fetch_one(&self.0)
            .await
            .expect("the session")
        {
            assert!(began.elapsed() < PATIENCE, "time stands still");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(&self, how: &str, pid: i32) {
        let sql = format!("select {how}($1)");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(pid)
            .execute(&self.0)
            .await
            .expect("it is ended");
    }
}

fn server(pair: &Pair, gateway: &TestGateway) -> Server {
    Server::start_on(
        &gateway.url(),
        &pair.options(),
        &[
            ("PAYONCE_LOCK_TIMEOUT", "1s"),
            ("PAYONCE_RECOVERY_INTERVAL", "100ms"),
        ],
    )
}

/// The wait for the standby can end early in two ways: a terminated backend does not answer, and a canceled one reports success.
async fn nothing_is_charged_for_a_claim_that_is_not_durable(how: &str) {
    let mut pair = Pair::start().await;
    let gateway = TestGateway::start();
    let node = server(&pair, &gateway);
    let acme = merchant(&pair.primary().options(), &node.url, "acme");
    assert_eq!(acme.pay("10").key("before").send().await.status, 201);

    let watch = Watch::of(&pair.primary().options()).await;
    pair.cut_off();
    let first = tokio::spawn({
        let request = acme.pay("10").key("k");
        async move { request.try_send().await }
    });
    let claim = watch.until_one_waits_besides(&[]).await;
    watch.until_it_waited_for_a_while(claim).await;
    watch.end(how, claim).await;
    // Reading its outcome, and recovering it, wait for the standby, too.
    watch.until_one_waits_besides(&[claim]).await;
    assert_eq!(
        gateway.calls(Endpoint::Charge).received,
        1,
        "the first payment's"
    );

    // The primary is lost, with the commits that only it has.
    pair.fail_over();
    drop(first.await);
    let began = Instant::now();
    loop {
        if let Ok(answer) = acme.pay("10").key("k").try_send().await
            && answer.status == 201
        {
            break;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "it is never paid: {}",
            node.log()
        );
    }
    let ledger = gateway.ledger();
    ledger.assert_nothing_twice();
    assert_eq!(ledger.charges.len(), 2, "one for each key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_backend_is_terminated_is_not_charged_before_it_is_durable() {
    nothing_is_charged_for_a_claim_that_is_not_durable("pg_terminate_backend").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_wait_is_canceled_is_not_charged_before_it_is_durable() {
    nothing_is_charged_for_a_claim_that_is_not_durable("pg_cancel_backend").await;
}

fn key(name: &str) -> ScopedKey {
    ScopedKey::new("acme", "order", IdempotencyKey::new(name).expect("a key"))
}

async fn engine(database: &PgConnectOptions) -> Engine {
    let pool = pool_options()
        .max_connections(4)
        .connect_with(database.clone())
        .await
        .expect("a pool");
    payonce::idempotency::migrate(&pool)
        .await
        .expect("the engine's tables");
    let config = IdempotencyConfig::default();
    Engine::start(pool, config, &FingerprintSecrets::new("secret"))
        .await
        .expect("a fit pool")
}

async fn order(engine: Engine, name: &'static str) -> bool {
    let work = async |mut tx: Transaction| {
        sqlx::query("insert into orders values ('tea')")
            .execute(&mut *tx)
            .await?;
        StoredResponse::json(201, &"ordered")
            .map(Outcome::Completed)
            .map_err(sqlx::Error::decode)
    };
    let answer = engine
        .execute(&key(name), &json!({"sku": "tea"}), work)
        .await;
    answer.is_ok_and(|answer| answer.response.status == 201)
}

/// Another node sees the row at once, and must not return the answer before it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_replayed_before_it_is_durable() {
    let pair = Pair::start().await;
    let database = pair.primary().options();
    let (one, two) = (engine(&database).await, engine(&database).await);
    sqlx::query("create table orders (sku text)")
        .execute(one.pool())
        .await
        .expect("a table");
    let watch = Watch::of(&database).await;
    pair.cut_off();

    let first = tokio::spawn(order(one, "k"));
    let commit = watch.until_one_waits_besides(&[]).await;
    watch.end("pg_terminate_backend", commit).await;
    let read_back = watch.until_one_waits_besides(&[commit]).await;
    let second = tokio::spawn(order(two, "k"));
    // The second waits in the database for the row that the first one's read has locked.
    let began = Instant::now();
    let is_blocked = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and $1 = any(pg_blocking_pids(pid))";
    while sqlx::query_scalar::<_, i64>(is_blocked)
        .bind(read_back)
        .fetch_one(&watch.0)
        .await
        .expect("the sessions")
        == 0
    {
        assert!(!second.is_finished(), "it was answered what may be lost");
        assert!(began.elapsed() < PATIENCE, "nobody waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!first.is_finished() && !second.is_finished());

    pair.reconnect();
    assert!(first.await.expect("no panic"), "it is durable now");
    assert!(second.await.expect("no panic"));
    let orders: i64 = sqlx::query_scalar("select count(*) from orders")
        .fetch_one(&watch.0)
        .await
        .expect("the orders");
    assert_eq!(orders, 1);
}
