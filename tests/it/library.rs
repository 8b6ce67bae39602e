//! The eight demonstrations with an embedding service, and rules of the two phases that cannot be tested through HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use payonce::database::pool_options;
use payonce::idempotency::records::{Inspector, KeyState};
use payonce::idempotency::{
    Answer, Cleaner, CleanupLimits, Engine, FingerprintSecrets, Gate, IdempotencyConfig,
    IdempotencyError, IdempotencyKey, Outcome, Permit, Plan, Released, ScopedKey, Settled,
    StoredResponse, Transaction, Wait,
};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::Instant;

use crate::support::rows::{end_leases, execute};
use crate::support::service::{clean_up, count};

/// A shop that embeds the engine. Its orders are in the engine's database; its couriers are another system.
struct Shop {
    engine: Engine,
    pool: PgPool,
    placed: Arc<AtomicUsize>,
}

impl Shop {
    async fn open(db: &PgConnectOptions) -> Self {
        Self::open_with(db, IdempotencyConfig::default()).await
    }

    fn cleaner(&self) -> Cleaner {
        Cleaner::new(self.pool.clone())
    }

    async fn open_with(db: &PgConnectOptions, config: IdempotencyConfig) -> Self {
        let pool = pool_options()
            .max_connections(10)
            .connect_with(db.clone())
            .await
            .expect("a pool");
        sqlx::raw_sql("set client_min_messages = error; create table if not exists orders (shop text, sku text)")
            .execute(&pool)
            .await
            .expect("a table");
        let secrets = FingerprintSecrets::new("secret");
        Self {
            engine: Engine::start(pool.clone(), config, &secrets)
                .await
                .expect("a fit pool"),
            pool,
            placed: Arc::default(),
        }
    }

    /// One transaction. More than 9 are not in stock.
    async fn order(&self, scope: &ScopedKey, quantity: u32) -> Result<Answer, IdempotencyError> {
        let (placed, shop) = (Arc::clone(&self.placed), scope.merchant_id.clone());
        let work = async move |mut tx: Transaction| {
            placed.fetch_add(1, Ordering::SeqCst);
            insert(&mut tx, &shop).await?;
            Ok::<_, sqlx::Error>(if quantity > 9 {
                Outcome::Failed(answer(409, quantity))
            } else {
                Outcome::Completed(answer(201, quantity))
            })
        };
        let request = json!({"sku": "tea", "quantity": quantity});
        self.engine.execute(scope, &request, work).await
    }

    async fn claim(&self, scope: &ScopedKey) -> Gate<()> {
        self.claim_within(scope, Duration::ZERO).await
    }

    async fn claim_within(&self, scope: &ScopedKey, most: Duration) -> Gate<()> {
        let shop = scope.merchant_id.clone();
        let plan = async move |mut tx: Transaction| {
            insert(&mut tx, &shop).await?;
            let resource_id = "parcel-1".to_owned();
            Ok::<_, sqlx::Error>(Plan::Call {
                resource_id,
                work: (),
            })
        };
        let request = json!("send");
        let gate = self.engine.claim(scope, &request, Wait::AtMost(most), plan);
        gate.await.expect("a gate")
    }

    async fn claimed(&self, scope: &ScopedKey) -> Permit {
        match self.claim(scope).await {
            Gate::Claimed { permit, .. } => permit,
            _ => panic!("not ours"),
        }
    }

    async fn settle(&self, permit: Permit, status: u16) -> Settled {
        let work = move |_: Transaction| async move {
            Ok::<_, sqlx::Error>(Outcome::Completed(answer(status, 0)))
        };
        self.engine.settle(permit, work).await.expect("an answer")
    }

    async fn attempts(&self, scope: &ScopedKey) -> (KeyState, i32) {
        let found = Inspector::new(self.pool.clone()).find(scope).await;
        let record = found.expect("an answer").expect("a record");
        (record.state, record.attempt)
    }

    async fn close(self) {
        self.engine.finish().await;
        self.pool.close().await;
    }
}

async fn insert(tx: &mut Transaction, shop: &str) -> sqlx::Result<()> {
    let insert = sqlx::query("insert into orders values ($1, 'tea')").bind(shop.to_owned());
    insert.execute(&mut **tx).await.map(drop)
}

fn answer(status: u16, quantity: u32) -> StoredResponse {
    StoredResponse::json(status, &json!({"quantity": quantity})).expect("JSON")
}

fn scope(merchant: &str, operation: &str, key: &str) -> ScopedKey {
    ScopedKey::new(
        merchant,
        operation,
        IdempotencyKey::new(key).expect("a key"),
    )
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn three_tries_get_one_answer_also_after_a_restart(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "order", "k");
    let shop = Shop::open(&db).await;
    let first = shop.order(&key, 2).await.expect("an answer");
    let again = shop.order(&key, 2).await.expect("an answer");
    shop.close().await;
    // Everything in memory is lost.
    let shop = Shop::open(&db).await;
    let later = shop.order(&key, 2).await.expect("an answer");
    assert_eq!(
        (first.replayed, again.replayed, later.replayed),
        (false, true, true)
    );
    assert_eq!(
        (&first.response, &first.response),
        (&again.response, &later.response)
    );
    assert_eq!(
        (again.expires_at, later.expires_at),
        (first.expires_at, first.expires_at)
    );
    assert_eq!(shop.placed.load(Ordering::SeqCst), 0);
    assert_eq!(count(&shop.pool, "orders").await, 1);
    assert_eq!(shop.attempts(&key).await, (KeyState::Completed, 1));
    shop.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn another_request_is_refused_with_both_hashes(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "order", "k");
    let (shop, other) = (Shop::open(&db).await, Shop::open(&db).await);
    shop.order(&key, 2).await.expect("an answer");
    let mut seen = Vec::new();
    // From memory, and from the database.
    for shop in [&shop, &other] {
        match shop.order(&key, 3).await {
            Err(IdempotencyError::FingerprintMismatch {
                expected_hash,
                actual_hash,
                changed,
            }) => {
                assert_eq!(changed, ["quantity"]);
                seen.push((expected_hash, actual_hash));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].0.len() == 64 && seen[0].1.len() == 64 && seen[0].0 != seen[0].1);
    assert_eq!(count(&shop.pool, "orders").await, 1);
    shop.close().await;
    other.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn fifty_at_once_on_two_engines_run_once(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "order", "k");
    let shops = [Shop::open(&db).await, Shop::open(&db).await];
    let answers = join_all((0..50).map(|i| shops[i % 2].order(&key, 2))).await;
    let answers: Vec<Answer> = answers
        .into_iter()
        .map(|answer| answer.expect("an answer"))
        .collect();
    assert!(
        answers
            .iter()
            .all(|answer| answer.response == answers[0].response)
    );
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    let placed: usize = shops
        .iter()
        .map(|shop| shop.placed.load(Ordering::SeqCst))
        .sum();
    assert_eq!((placed, count(&shops[0].pool, "orders").await), (1, 1));
    assert_eq!(count(&shops[0].pool, "idempotency_keys").await, 1);
    for shop in shops {
        shop.close().await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_failure_is_kept_as_such_and_not_tried_again(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "order", "k");
    let shop = Shop::open(&db).await;
    for _ in 0..3 {
        let refused = shop.order(&key, 10).await.expect("an answer");
        assert_eq!(refused.response.status, 409);
    }
    assert_eq!(shop.placed.load(Ordering::SeqCst), 1);
    assert_eq!(
        count(&shop.pool, "orders").await,
        0,
        "what it wrote is undone"
    );
    assert_eq!(shop.attempts(&key).await, (KeyState::Failed, 1));
    shop.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn merchants_and_operations_have_keys_of_their_own(_: PgPoolOptions, db: PgConnectOptions) {
    let shop = Shop::open(&db).await;
    for (merchant, operation) in [("acme", "order"), ("globex", "order"), ("acme", "reorder")] {
        let answer = shop
            .order(&scope(merchant, operation, "same"), 1)
            .await
            .expect("an answer");
        assert!(!answer.replayed, "{merchant} {operation}");
    }
    assert_eq!(count(&shop.pool, "orders").await, 3);
    // Parts that join to the same text are not the same key.
    for (merchant, operation, key) in [("a", "b:c", "d"), ("a:b", "c", "d"), ("a", "b", "c:d")] {
        let answer = shop
            .order(&scope(merchant, operation, key), 1)
            .await
            .expect("an answer");
        assert!(!answer.replayed);
    }
    shop.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_double_click_on_two_nodes_makes_one_call(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "send", "k");
    let (one, two) = (Shop::open(&db).await, Shop::open(&db).await);
    let permit = one.claimed(&key).await;
    let patience = Duration::from_secs(5);
    let mut here = Box::pin(one.claim_within(&key, patience));
    let mut there = Box::pin(two.claim_within(&key, patience));
    // Both arrive while the first is in progress.
    assert!(futures_util::poll!(here.as_mut()).is_pending());
    assert!(futures_util::poll!(there.as_mut()).is_pending());
    let winner = one.settle(permit, 202).await;
    let (here, there) = tokio::join!(here, there);
    assert!(matches!(winner, Settled::Stored(answer) if !answer.replayed));
    for clicked in [here, there] {
        let Gate::Answered(answer) = clicked else {
            panic!("it waits and replays")
        };
        assert!(answer.replayed && answer.response.status == 202);
    }
    assert_eq!(count(&one.pool, "orders").await, 1);
    one.close().await;
    two.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn five_keys_past_their_time_are_cleaned_up_in_batches(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let short = IdempotencyConfig::default().with_ttl(Duration::from_millis(100));
    let shop = Shop::open_with(&db, short).await;
    for i in 0..5 {
        shop.order(&scope("acme", "order", &format!("k{i}")), 1)
            .await
            .expect("an answer");
    }
    while shop.cleaner().count_expired().await.expect("a count") < 5 {
        crate::support::pause().await;
    }
    let limits = CleanupLimits {
        batch_size: 2,
        ..Default::default()
    };
    let none = CleanupLimits {
        max_duration: Duration::ZERO,
        ..limits
    };
    let report = shop.cleaner().run(none).await.expect("a report");
    assert_eq!(
        (report.deleted, report.batches, report.remaining),
        (0, 0, 5)
    );
    let report = shop.cleaner().run(limits).await.expect("a report");
    assert_eq!(
        (report.deleted, report.batches, report.remaining),
        (5, 3, 0)
    );
    assert!(!report.another_is_running);
    assert_eq!(count(&shop.pool, "idempotency_keys").await, 0);
    shop.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_oldest_go_first_and_what_is_held_is_left(_: PgPoolOptions, db: PgConnectOptions) {
    let shop = Shop::open(&db).await;
    for i in 0..6 {
        let key = scope("acme", "order", &format!("k{i}"));
        shop.order(&key, 1).await.expect("an answer");
    }
    // k5 expired first; k0 has not expired. A trigger records the transaction of each deletion.
    execute(
        &shop.pool,
        "update idempotency_keys
        set expires_at = now() - make_interval(hours => substr(key, 2)::int) + interval '1 minute';
        create table deleted (batch xid8, key text);
        create function note() returns trigger language plpgsql as
            'begin insert into deleted values (pg_current_xact_id(), old.key); return null; end';
        create trigger note after delete on idempotency_keys for each row execute function note()",
    )
    .await;
    let mut holding = shop.pool.begin().await.expect("a transaction");
    sqlx::query("select 1 from idempotency_keys where key = 'k5' for update")
        .execute(&mut *holding)
        .await
        .expect("a lock");
    let limits = CleanupLimits {
        batch_size: 2,
        ..Default::default()
    };
    let report = shop.cleaner().run(limits).await.expect("a report");
    assert_eq!((report.deleted, report.remaining), (4, 1), "k5 is held");
    holding.rollback().await.expect("an end");
    let report = shop.cleaner().run(limits).await.expect("a report");
    assert_eq!((report.deleted, report.remaining), (1, 0));
    let batches: Vec<String> = sqlx::query_scalar(
        "select string_agg(key, ' ' order by key) from deleted group by batch order by batch",
    )
    .fetch_all(&shop.pool)
    .await
    .expect("what was deleted");
    // k5 is left out of its batch, and the other half is deleted alone.
    assert_eq!(batches, ["k4", "k2 k3", "k1", "k5"]);
    assert_eq!(count(&shop.pool, "idempotency_keys").await, 1);
    shop.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn unfinished_work_never_expires(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "send", "k");
    let (shop, other) = (Shop::open(&db).await, Shop::open(&db).await);
    let permit = shop.claimed(&key).await;
    execute(
        &shop.pool,
        "update idempotency_keys set expires_at = now() - interval '1 day'",
    )
    .await;
    assert_eq!(clean_up(&other.pool).await.deleted, 0);
    assert!(matches!(other.claim(&key).await, Gate::InProgress { .. }));
    assert!(matches!(shop.settle(permit, 200).await, Settled::Stored(_)));
    assert_eq!(shop.attempts(&key).await, (KeyState::Completed, 1));
    assert_eq!(clean_up(&other.pool).await.deleted, 1);
    shop.close().await;
    other.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn time_alone_takes_nothing_from_an_owner(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "send", "k");
    let shop = Shop::open(&db).await;
    let permit = shop.claimed(&key).await;
    end_leases(&shop.pool).await;
    // It was not taken over, so the late owner's answer counts.
    assert!(matches!(shop.settle(permit, 200).await, Settled::Stored(_)));
    assert_eq!(shop.attempts(&key).await, (KeyState::Completed, 1));
    shop.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_late_owner_can_neither_settle_nor_release(_: PgPoolOptions, db: PgConnectOptions) {
    let (one, two) = (Shop::open(&db).await, Shop::open(&db).await);
    for (name, settled_first) in [("before", false), ("after", true)] {
        let key = scope("acme", "send", name);
        let late = one.claimed(&key).await;
        end_leases(&one.pool).await;
        let Gate::TakenOver(permit) = two.claim(&key).await else {
            panic!("a duplicate takes an abandoned claim over");
        };
        assert_eq!(
            (permit.claim().attempt, permit.resource_id()),
            (2, "parcel-1")
        );
        let mut winner = Some(permit);
        if settled_first {
            let permit = winner.take().expect("the winner's permit");
            assert!(matches!(two.settle(permit, 200).await, Settled::Stored(_)));
            assert!(
                matches!(one.settle(late, 500).await, Settled::Lost(Some(answer)) if answer.response.status == 200)
            );
        } else {
            let undo = |mut tx: Transaction| async move {
                sqlx::query("delete from orders")
                    .execute(&mut *tx)
                    .await
                    .map(drop)
            };
            let released = one.engine.release(late, undo).await.expect("an answer");
            assert_eq!(released, Released::Lost);
        }
        assert!(count(&one.pool, "orders").await > 0, "nothing was undone");
        if let Some(permit) = winner {
            assert!(matches!(two.settle(permit, 200).await, Settled::Stored(_)));
        }
        assert_eq!(two.attempts(&key).await, (KeyState::Completed, 2));
    }
    assert_eq!(count(&one.pool, "unsettled_keys").await, 0);
    one.close().await;
    two.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn ten_that_find_an_abandoned_claim_are_one_new_owner(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let key = scope("acme", "send", "k");
    let dead = Shop::open(&db).await;
    drop(dead.claimed(&key).await);
    end_leases(&dead.pool).await;
    let mut shops = Vec::new();
    for _ in 0..10 {
        shops.push(Shop::open(&db).await);
    }
    let gates = join_all(shops.iter().map(|shop| shop.claim(&key))).await;
    let owners = gates
        .iter()
        .filter(|gate| matches!(gate, Gate::TakenOver(_)));
    assert_eq!(owners.count(), 1);
    let busy = gates
        .iter()
        .filter(|gate| matches!(gate, Gate::InProgress { .. }));
    assert_eq!(busy.count(), 9);
    assert_eq!(dead.attempts(&key).await, (KeyState::Processing, 2));
    drop(gates);
    for shop in shops {
        shop.close().await;
    }
    dead.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_settle_that_fails_or_panics_leaves_the_claim_to_the_next(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let shop = Shop::open(&db).await;
    let fails = |mut tx: Transaction| async move {
        sqlx::query("delete from orders")
            .execute(&mut *tx)
            .await
            .map_err(|e| e.to_string())?;
        Err::<Outcome, _>("no".to_owned())
    };
    let panics = |mut tx: Transaction| async move {
        sqlx::query("delete from orders").execute(&mut *tx).await?;
        if true {
            panic!("of the test");
        }
        Ok::<Outcome, sqlx::Error>(Outcome::Completed(answer(200, 0)))
    };
    let (failing, panicking) = (
        scope("acme", "send", "fails"),
        scope("acme", "send", "panics"),
    );
    let permit = shop.claimed(&failing).await;
    let failed = shop.engine.settle(permit, fails).await;
    assert!(matches!(failed, Err(IdempotencyError::Work(_))));
    let permit = shop.claimed(&panicking).await;
    let failed = shop.engine.settle(permit, panics).await;
    assert!(matches!(failed, Err(IdempotencyError::Aborted(_))));
    assert_eq!(
        count(&shop.pool, "orders").await,
        2,
        "nothing of it is left"
    );
    end_leases(&shop.pool).await;
    for key in [&failing, &panicking] {
        assert_eq!(shop.attempts(key).await, (KeyState::Processing, 1));
        let taken = shop.engine.take_over(key).await.expect("an answer");
        assert!(matches!(
            shop.settle(taken.expect("a permit"), 200).await,
            Settled::Stored(_)
        ));
    }
    shop.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn work_that_keeps_the_transaction_is_not_committed(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "order", "k");
    let shop = Shop::open(&db).await;
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let keeps = async move |mut tx: Transaction| {
        insert(&mut tx, "acme").await?;
        drop(keep.send(tx));
        Ok::<_, sqlx::Error>(Outcome::Completed(answer(201, 1)))
    };
    let refused = shop.engine.execute(&key, &1, keeps).await;
    assert!(matches!(refused, Err(IdempotencyError::Aborted(_))));
    drop(kept.recv().await);
    assert_eq!(
        (
            count(&shop.pool, "orders").await,
            count(&shop.pool, "idempotency_keys").await
        ),
        (0, 0)
    );
    assert!(!shop.order(&key, 1).await.expect("an answer").replayed);
    shop.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_duplicate_waits_as_long_as_configured_or_asked(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "send", "k");
    let config = IdempotencyConfig::default()
        .with_retry_interval(Duration::from_millis(50))
        .with_max_retries(100);
    let owner = Shop::open(&db).await;
    let other = Shop::open_with(&db, config).await;
    let permit = owner.claimed(&key).await;
    for (asked, least, most) in [(0, 0, 4500), (300, 250, 4500), (60_000, 4900, 50_000)] {
        let since = Instant::now();
        let gates =
            join_all((0..30).map(|_| other.claim_within(&key, Duration::from_millis(asked)))).await;
        assert!(gates.iter().all(
            |gate| matches!(gate, Gate::InProgress { retry_after } if *retry_after > Duration::ZERO)
        ));
        let waited = since.elapsed().as_millis();
        assert!(
            (least..most).contains(&waited),
            "asked for {asked} ms, waited {waited} ms"
        );
    }
    assert!(matches!(
        owner.settle(permit, 200).await,
        Settled::Stored(_)
    ));
    owner.close().await;
    other.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn thirty_that_wait_for_thirty_keys_hold_no_connection(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let config = IdempotencyConfig::default()
        // Longer than any wait for a connection.
        .with_retry_interval(Duration::from_millis(3500));
    let owner = Shop::open(&db).await;
    let other = Shop::open_with(&db, config).await;
    let keys: Vec<ScopedKey> = (0..30)
        .map(|i| scope("acme", "send", &format!("k{i}")))
        .collect();
    let mut permits = Vec::new();
    for key in &keys {
        permits.push(owner.claimed(key).await);
    }
    let patience = Duration::from_secs(40);
    let waiting = join_all(keys.iter().map(|key| other.claim_within(key, patience)));
    let settling = async {
        // All ten connections, while thirty tasks wait.
        let mut all = Vec::new();
        while all.len() < 10 {
            let free = other.pool.acquire().await;
            all.push(free.expect("a connection is free"));
        }
        drop(all);
        for permit in permits {
            assert!(matches!(
                owner.settle(permit, 200).await,
                Settled::Stored(_)
            ));
        }
    };
    let (gates, ()) = tokio::join!(waiting, settling);
    assert!(
        gates
            .iter()
            .all(|gate| matches!(gate, Gate::Answered(answer) if answer.replayed))
    );
    owner.close().await;
    other.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_engine_that_rotates_its_secret_accepts_both(_: PgPoolOptions, db: PgConnectOptions) {
    let key = scope("acme", "order", "k");
    let shop = Shop::open(&db).await;
    let first = shop.order(&key, 2).await.expect("an answer");
    let rotated = async |secrets| Shop {
        engine: Engine::start(shop.pool.clone(), IdempotencyConfig::default(), &secrets)
            .await
            .expect("a fit pool"),
        pool: shop.pool.clone(),
        placed: Arc::default(),
    };
    let new = rotated(FingerprintSecrets::new("new").accepting("secret")).await;
    assert_eq!(
        new.order(&key, 2).await.expect("a replay").response,
        first.response
    );
    let fresh = scope("acme", "order", "fresh");
    new.order(&fresh, 2).await.expect("an answer");
    let newest = rotated(FingerprintSecrets::new("new")).await;
    assert!(
        newest
            .order(&fresh, 2)
            .await
            .expect("the first secret signed it")
            .replayed
    );
    assert!(matches!(
        newest.order(&key, 2).await,
        Err(IdempotencyError::Unreadable)
    ));
    shop.close().await;
}
