//! The engine as a library: the guarantees for an embedding service.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use payonce::database::pool_options;
use payonce::idempotency::{
    Engine, FingerprintSecrets, Gate, IdempotencyConfig, IdempotencyError, IdempotencyKey, Outcome,
    Plan, Released, ScopedKey, Settled, StoredResponse, Transaction, Wait,
};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};

use crate::support::rows::end_leases;
use crate::support::service::count;

async fn engine(db: &PgConnectOptions, connections: u32) -> (Engine, PgPool) {
    let pool = pool_options()
        .max_connections(connections)
        .connect_with(db.clone())
        .await
        .expect("a pool");
    sqlx::query("create table if not exists orders (sku text primary key)")
        .execute(&pool)
        .await
        .expect("a table");
    let secrets = FingerprintSecrets::new("secret");
    (
        Engine::start(pool.clone(), IdempotencyConfig::default(), &secrets)
            .await
            .expect("a fit pool"),
        pool,
    )
}

fn key(key: &str) -> ScopedKey {
    ScopedKey::new(
        "acme",
        "create_order",
        IdempotencyKey::new(key).expect("a key"),
    )
}

fn response(status: u16) -> StoredResponse {
    StoredResponse::json(status, &json!({"status": status})).expect("JSON")
}

async fn insert(tx: &mut Transaction, sku: &str) -> sqlx::Result<()> {
    sqlx::query("insert into orders values ($1)")
        .bind(sku)
        .execute(&mut **tx)
        .await
        .map(drop)
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn work_answer_and_key_commit_together(_: PgPoolOptions, db: PgConnectOptions) {
    let (engine, pool) = engine(&db, 20).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let order = |name: &'static str| {
        let runs = Arc::clone(&runs);
        async move |mut tx: Transaction| {
            runs.fetch_add(1, Ordering::SeqCst);
            insert(&mut tx, name).await?;
            Ok::<_, sqlx::Error>(Outcome::Completed(response(201)))
        }
    };
    let scoped = key("k");
    let request = json!({"sku": "tea"});
    let answers = join_all((0..50).map(|_| engine.execute(&scoped, &request, order("tea")))).await;
    let answers: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.expect("an answer"))
        .collect();
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.response == answers[0].response)
    );
    assert_eq!(
        (runs.load(Ordering::SeqCst), count(&pool, "orders").await),
        (1, 1)
    );
    let other = engine
        .execute(&scoped, &json!({"sku": "coffee"}), order("coffee"))
        .await;
    match other {
        Err(IdempotencyError::FingerprintMismatch {
            expected_hash,
            actual_hash,
            changed,
        }) => {
            assert!(expected_hash.len() == 64 && expected_hash != actual_hash);
            assert_eq!(changed, ["sku"]);
        }
        other => panic!("{other:?}"),
    }
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_failure_is_stored_an_error_is_not_and_both_undo_the_work(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (engine, pool) = engine(&db, 5).await;
    let failed = async |mut tx: Transaction| {
        insert(&mut tx, "tea").await?;
        Ok::<_, sqlx::Error>(Outcome::Failed(response(409)))
    };
    let request = json!({});
    for replayed in [false, true] {
        let answer = engine
            .execute(&key("failed"), &request, failed)
            .await
            .expect("an answer");
        assert_eq!((answer.response.status, answer.replayed), (409, replayed));
    }
    let error = async |mut tx: Transaction| {
        insert(&mut tx, "tea")
            .await
            .map_err(|error| error.to_string())?;
        Err::<Outcome, _>("out of tea".to_owned())
    };
    let refused = engine.execute(&key("error"), &request, error).await;
    assert!(
        matches!(refused, Err(IdempotencyError::Work(cause)) if cause.to_string() == "out of tea")
    );
    let panics = async |_: Transaction| -> Result<Outcome, sqlx::Error> { panic!("of the test") };
    let refused = engine.execute(&key("panic"), &request, panics).await;
    assert!(matches!(refused, Err(IdempotencyError::Aborted(_))));
    assert_eq!(
        (
            count(&pool, "orders").await,
            count(&pool, "idempotency_keys").await
        ),
        (0, 1)
    );
    let good = async |mut tx: Transaction| {
        insert(&mut tx, "tea").await?;
        Ok::<_, sqlx::Error>(Outcome::Completed(response(201)))
    };
    for again in ["error", "panic"] {
        sqlx::query("delete from orders")
            .execute(&pool)
            .await
            .expect("an empty table");
        assert!(
            !engine
                .execute(&key(again), &request, good)
                .await
                .expect("an answer")
                .replayed
        );
    }
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_expired_key_counts_as_absent(_: PgPoolOptions, db: PgConnectOptions) {
    let (first, pool) = engine(&db, 5).await;
    let work = async |_: Transaction| Ok::<_, sqlx::Error>(Outcome::Completed(response(200)));
    first.execute(&key("k"), &1, work).await.expect("an answer");
    sqlx::query("update idempotency_keys set expires_at = now() - interval '1 second'")
        .execute(&pool)
        .await
        .expect("moved");
    let (second, second_pool) = engine(&db, 5).await;
    let answer = second
        .execute(&key("k"), &2, work)
        .await
        .expect("another request, another use");
    assert!(!answer.replayed);
    assert_eq!(count(&pool, "idempotency_keys").await, 1);
    pool.close().await;
    second_pool.close().await;
}

async fn claim(engine: &Engine, name: &str) -> Gate<()> {
    let plan = async |mut tx: Transaction| {
        insert(&mut tx, "tea").await?;
        Ok::<_, sqlx::Error>(Plan::Call {
            resource_id: "tea".to_owned(),
            work: (),
        })
    };
    engine
        .claim(&key(name), &1, Wait::AtMost(Duration::ZERO), plan)
        .await
        .expect("a gate")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn two_phases_and_a_fence(_: PgPoolOptions, db: PgConnectOptions) {
    let (owner, pool) = engine(&db, 5).await;
    let (other, other_pool) = engine(&db, 5).await;
    let Gate::Claimed { permit: late, .. } = claim(&owner, "k").await else {
        panic!("not ours")
    };
    assert!(matches!(claim(&other, "k").await, Gate::InProgress { .. }));
    assert!(
        other
            .take_over(&key("k"))
            .await
            .expect("an answer")
            .is_none(),
        "its lease holds"
    );
    end_leases(&pool).await;
    assert_eq!(
        other
            .list_abandoned(&["create_order"], None, 10)
            .await
            .expect("a list")
            .len(),
        1
    );
    let permit = other
        .take_over(&key("k"))
        .await
        .expect("an answer")
        .expect("a permit");
    assert_eq!((permit.claim().attempt, permit.resource_id()), (2, "tea"));
    assert!(
        other
            .list_abandoned(&["create_order"], None, 10)
            .await
            .expect("a list")
            .is_empty()
    );

    let settle = |status| {
        move |_: Transaction| async move { Ok::<_, sqlx::Error>(Outcome::Completed(response(status))) }
    };
    let lost = owner.settle(late, settle(500)).await.expect("an answer");
    assert!(
        matches!(lost, Settled::Lost(None)),
        "the winner has no answer yet"
    );
    let stored = other.settle(permit, settle(200)).await.expect("an answer");
    assert!(matches!(stored, Settled::Stored(answer) if answer.response.status == 200));
    let Gate::Answered(answer) = claim(&owner, "k").await else {
        panic!("no replay")
    };
    assert_eq!(answer.response.status, 200);
    assert_eq!(count(&pool, "unsettled_keys").await, 0);
    pool.close().await;
    other_pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_released_claim_leaves_nothing(_: PgPoolOptions, db: PgConnectOptions) {
    let (engine, pool) = engine(&db, 5).await;
    let Gate::Claimed { permit, .. } = claim(&engine, "k").await else {
        panic!("not ours")
    };
    let undo = |mut tx: Transaction| async move {
        sqlx::query("delete from orders")
            .execute(&mut *tx)
            .await
            .map(drop)
    };
    assert_eq!(
        engine.release(permit, undo).await.expect("an answer"),
        Released::Removed
    );
    for table in ["orders", "idempotency_keys", "unsettled_keys"] {
        assert_eq!(count(&pool, table).await, 0, "{table}");
    }
    assert!(matches!(claim(&engine, "k").await, Gate::Claimed { .. }));
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_owner_at_work_renews_its_leases(_: PgPoolOptions, db: PgConnectOptions) {
    let pool = pool_options()
        .max_connections(5)
        .connect_with(db.clone())
        .await
        .expect("a pool");
    let config = IdempotencyConfig::default().with_lock_timeout(Duration::from_secs(6));
    let engine = Engine::start(pool.clone(), config, &FingerprintSecrets::new("s"))
        .await
        .expect("a fit pool");
    sqlx::query("create table orders (sku text primary key)")
        .execute(&pool)
        .await
        .expect("a table");
    let Gate::Claimed { permit, .. } = claim(&engine, "k").await else {
        panic!("not ours")
    };
    let renewed = || async {
        sqlx::query_scalar::<_, bool>(
            "select lease_expires_at > created_at + interval '6.2 seconds' from idempotency_keys",
        )
        .fetch_one(&pool)
        .await
        .expect("the row")
    };
    while !renewed().await {
        assert!(
            engine
                .list_abandoned(&["create_order"], None, 10)
                .await
                .expect("a list")
                .is_empty(),
            "the lease ran out"
        );
        crate::support::pause().await;
    }
    // Without an owner the lease ends.
    drop(permit);
    while engine
        .list_abandoned(&["create_order"], None, 10)
        .await
        .expect("a list")
        .is_empty()
    {
        crate::support::pause().await;
    }
    pool.close().await;
}

/// Polls a future `polls` times, while others run in between, and then drops it. Returns true if it had ended.
pub async fn drop_after<F: Future>(future: F, polls: usize) -> bool {
    let mut future = pin!(future);
    for _ in 0..polls {
        if future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

async fn insert_confirmed(pool: &PgPool, sku: &str) -> bool {
    let inserted = sqlx::query("insert into orders values ($1)")
        .bind(sku)
        .execute(pool)
        .await;
    inserted.is_ok()
}

/// Drops begin, insert and commit at each of their awaits, with confirmed writes in between. Returns how many of these were lost.
async fn lost_writes(pool: &PgPool, rounds: usize) -> usize {
    let mut confirmed = Vec::new();
    for round in 0..rounds {
        let transaction = async {
            let mut tx = pool.begin().await?;
            sqlx::query("insert into orders values ($1)")
                .bind(format!("t{round}"))
                .execute(&mut *tx)
                .await?;
            tx.commit().await
        };
        drop_after(transaction, round % 40).await;
        let sku = format!("c{round}");
        if insert_confirmed(pool, &sku).await {
            confirmed.push(sku);
        }
    }
    pool.close().await;
    let mut fresh = sqlx::PgConnection::connect_with(&pool.connect_options())
        .await
        .expect("a connection");
    let kept: i64 = sqlx::query_scalar("select count(*) from orders where sku = any($1)")
        .bind(&confirmed)
        .fetch_one(&mut fresh)
        .await
        .expect("a count");
    confirmed.len() - usize::try_from(kept).expect("a count")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn thousands_of_dropped_transactions_lose_no_confirmed_write(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (_, pool) = engine(&db, 2).await;
    assert_eq!(lost_writes(&pool, 2000).await, 0);
}

/// The control: without the check, sqlx 0.9.0 loses some. It depends on a race, so it is run manually (`cargo test -- --ignored`);
/// if it fails with a newer sqlx, sqlx is fixed and the check can be removed.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
#[ignore = "shows a fault of sqlx, by a race"]
async fn plain_sqlx_loses_confirmed_writes(options: PgPoolOptions, db: PgConnectOptions) {
    let (_, checked) = engine(&db, 2).await;
    checked.close().await;
    let plain = options
        .max_connections(1)
        .connect_with(db)
        .await
        .expect("a pool");
    assert!(lost_writes(&plain, 1000).await > 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn thousands_of_dropped_requests_leave_each_key_whole(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (engine, pool) = engine(&db, 4).await;
    for round in 0..2000 {
        let scoped = key(&format!("k{}", round / 2));
        let sku = format!("s{}", round / 2);
        let work = async move |mut tx: Transaction| {
            insert(&mut tx, &sku).await?;
            Ok::<_, sqlx::Error>(Outcome::Completed(response(201)))
        };
        drop_after(engine.execute(&scoped, &1, work), round % 23).await;
    }
    engine.finish().await;
    // Each key that is there has its order, and each order its key.
    let keys = count(&pool, "idempotency_keys").await;
    assert_eq!(count(&pool, "orders").await, keys);
    assert!(keys > 0);
    let open: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'",
    )
    .fetch_one(&pool)
    .await
    .expect("a count");
    assert_eq!(open, 0);
    pool.close().await;
}
