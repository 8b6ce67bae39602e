//! An owner makes its call only while it holds its claim, however long it was stopped before.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use payonce::database::pool_options;
use payonce::idempotency::{
    Engine, Fence, FingerprintSecrets, Gate, IdempotencyConfig, IdempotencyError, IdempotencyKey,
    Outcome, Permit, Plan, ScopedKey, Settled, Wait,
};
use payonce::recovery::Recovery;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::gateway::{Endpoint, Fault, TestGateway};
use crate::support::process::{Server, merchant};
use crate::support::rows::end_leases;
use crate::support::service::{Answer, Service};

/// Only an event that never happens exceeds it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than any gateway remembers its idempotency keys.
const A_DAY_AND_MORE: u64 = 25 * 60 * 60;

/// A server that is stopped right before its first call, and whose clock the test moves.
struct Sleeper {
    server: Server,
    clock: tempfile::NamedTempFile,
}

impl Sleeper {
    fn start(database: &PgConnectOptions, gateway: &TestGateway) -> Self {
        Self::start_with(database, gateway, "call-before=1*return(stop)")
    }

    fn start_with(database: &PgConnectOptions, gateway: &TestGateway, failpoints: &str) -> Self {
        let clock = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(clock.path(), "0").expect("the clock");
        let path = clock.path().to_string_lossy().into_owned();
        let settings = [
            ("PAYONCE_LOCK_TIMEOUT", "500ms"),
            ("PAYONCE_RECOVERY_INTERVAL", "1h"),
            ("FAILPOINTS", failpoints),
            ("PAYONCE_TEST_CLOCK", &path),
        ];
        Self {
            server: Server::start_on(&gateway.url(), database, &settings),
            clock,
        }
    }

    async fn until_it_stands_still(&self) {
        let began = Instant::now();
        while !self.server.is_stopped() {
            assert!(began.elapsed() < PATIENCE, "{}", self.server.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Continues the server, with its clock this much later.
    fn wake_after(&self, seconds: u64) {
        std::fs::write(self.clock.path(), seconds.to_string()).expect("the clock");
        self.server.signal(Signal::SIGCONT);
    }
}

/// Makes all rows a day older.
async fn age(database: &PgConnectOptions) {
    let pool = sqlx::PgPool::connect_with(database.clone())
        .await
        .expect("a pool");
    sqlx::raw_sql(
        "update idempotency_keys set created_at = created_at - interval '25 hours',
            completed_at = completed_at - interval '25 hours';
         update unsettled_keys set claimed_at = claimed_at - interval '25 hours';
         update payments set created_at = created_at - interval '25 hours'",
    )
    .execute(&pool)
    .await
    .expect("the rows' time is moved");
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_owner_that_slept_for_a_day_and_was_succeeded_does_not_call(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let sleeper = Sleeper::start(&db, &gateway);
    let (late, paid) = sleep_for_a_day(&db, &gateway, &sleeper).await;
    assert_eq!((late.status, &late.bytes), (paid.status, &paid.bytes));
    assert!(late.replayed(), "it was not the late one that paid");
}

/// Its first attempt did not reach the gateway.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_owner_that_slept_for_a_day_between_two_attempts_does_not_call(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    gateway.script([(Endpoint::Charge, Fault::ErrorBefore)]);
    let sleeper = Sleeper::start_with(&db, &gateway, "stripe-again=1*return(stop)");
    let (late, paid) = sleep_for_a_day(&db, &gateway, &sleeper).await;
    // It does not know what its first attempt did.
    assert_eq!((late.status.as_u16(), paid.status.as_u16()), (202, 201));
}

/// Another node takes over and charges, and a day later the first one continues. Returns both answers.
async fn sleep_for_a_day(
    db: &PgConnectOptions,
    gateway: &TestGateway,
    sleeper: &Sleeper,
) -> (Answer, Answer) {
    let acme = merchant(db, &sleeper.server.url, "acme");
    let request = acme.pay("10").key("k");
    let late = tokio::spawn({
        let request = request.clone();
        async move { request.send().await }
    });
    sleeper.until_it_stands_still().await;
    let survivor = Server::start_on(
        &gateway.url(),
        db,
        &[
            ("PAYONCE_LOCK_TIMEOUT", "500ms"),
            ("PAYONCE_RECOVERY_INTERVAL", "100ms"),
        ],
    );
    let began = Instant::now();
    let paid = loop {
        let answer = request.clone().at(&survivor.url).send().await;
        if answer.status == 201 {
            break answer;
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
    };
    let calls = gateway.calls(Endpoint::Charge).received;
    // A day passes: the gateway has forgotten its keys.
    gateway.forget_keys();
    sleeper.wake_after(A_DAY_AND_MORE);
    let late = late.await.expect("the late owner's client");
    assert_eq!(
        gateway.calls(Endpoint::Charge).received,
        calls,
        "the late owner called"
    );
    gateway.ledger().assert_nothing_twice();
    (late, paid)
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_owner_that_slept_for_a_day_asks_in_place_of_calling(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let sleeper = Sleeper::start(&db, &gateway);
    let acme = merchant(&db, &sleeper.server.url, "acme");
    let late = tokio::spawn({
        let request = acme.pay("10").key("k");
        async move { request.send().await }
    });
    sleeper.until_it_stands_still().await;
    age(&db).await;
    gateway.forget_keys();
    sleeper.wake_after(A_DAY_AND_MORE);
    let late = late.await.expect("the late owner's client");
    assert_eq!(
        gateway.calls(Endpoint::Charge).received,
        0,
        "nobody waits for a payment of yesterday any more"
    );
    assert_eq!(
        (late.status.as_u16(), late.text("state")),
        (202, "PROCESSING".into()),
        "the adapter's own clock has not moved, and a young charge may be under way"
    );
    assert!(
        gateway.calls(Endpoint::ListIntents).received > 0,
        "the gateway is asked"
    );
}

struct Shop {
    engine: Engine,
    pool: sqlx::PgPool,
}

impl Shop {
    async fn open(db: &PgConnectOptions, lock_timeout: Duration) -> Self {
        let pool = pool_options()
            .max_connections(4)
            .connect_with(db.clone())
            .await
            .expect("a pool");
        let config = IdempotencyConfig::default().with_lock_timeout(lock_timeout);
        let secrets = FingerprintSecrets::new("secret");
        Self {
            engine: Engine::start(pool.clone(), config, &secrets)
                .await
                .expect("a fit pool"),
            pool,
        }
    }

    async fn claim(&self, operation: &str) -> Permit {
        let plan = async |_| {
            Ok::<_, sqlx::Error>(Plan::Call {
                resource_id: "thing".to_owned(),
                work: (),
            })
        };
        let (scope, request) = (key(operation), json!({}));
        let claimed = self.engine.claim(&scope, &request, Wait::Configured, plan);
        match claimed.await.expect("a gate") {
            Gate::Claimed { permit, .. } => permit,
            _ => panic!("the key is in use"),
        }
    }
}

fn key(operation: &str) -> ScopedKey {
    ScopedKey::new("acme", operation, IdempotencyKey::new("k").expect("a key"))
}

/// The engine's timer renews less often, so all renewals here are by the fence.
const NEVER: Duration = Duration::from_secs(3600);

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_fence_holds_for_the_claims_owner_alone(_: PgPoolOptions, db: PgConnectOptions) {
    let (one, two) = (Shop::open(&db, NEVER).await, Shop::open(&db, NEVER).await);
    let permit = one.claim("order").await;
    assert!(matches!(
        one.engine.fence(&permit).await.expect("an answer"),
        Fence::Held { age: Some(age) } if age < NEVER
    ));
    end_leases(&one.pool).await;
    let successor = two
        .engine
        .take_over(&key("order"))
        .await
        .expect("an answer");
    assert!(successor.is_some());
    // The first does not know yet, and its lease has not ended by its own clock. Its settle is still fenced.
    let lost = one.engine.give_way(permit).await.expect("an answer");
    assert!(matches!(lost, Settled::Lost(None)));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_lease_that_is_over_is_renewed_before_the_call_or_nothing_is_called(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    // A lease that ends at once.
    let shop = Shop::open(&db, Duration::from_nanos(1)).await;
    let permit = shop.claim("order").await;
    let fence = shop.engine.fence(&permit).await.expect("an answer");
    assert_eq!(fence, Fence::Lost, "it is over again before it can be used");

    let shop = Shop::open(&db, Duration::from_millis(200)).await;
    let permit = shop.claim("other").await;
    sqlx::query("update idempotency_keys set attempt = attempt + 1 where operation = 'other'")
        .execute(&shop.pool)
        .await
        .expect("another attempt");
    let began = Instant::now();
    while shop.engine.fence(&permit).await.expect("an answer") != Fence::Lost {
        assert!(
            began.elapsed() < PATIENCE,
            "its lease is renewed for another attempt"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn without_the_database_a_lease_that_is_over_allows_no_call(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let shop = Shop::open(&db, Duration::from_millis(200)).await;
    let permit = shop.claim("order").await;
    shop.pool.close().await;
    let began = Instant::now();
    loop {
        match shop.engine.fence(&permit).await {
            Ok(Fence::Held { .. }) => assert!(began.elapsed() < PATIENCE),
            Ok(Fence::Lost) => panic!("nobody has taken it"),
            Err(IdempotencyError::Database(_)) => break,
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_age_below_zero_is_not_known(_: PgPoolOptions, db: PgConnectOptions) {
    let shop = Shop::open(&db, NEVER).await;
    drop(shop.claim("order").await);
    sqlx::query("update idempotency_keys set created_at = now() + interval '1 hour', expires_at = now() + interval '2 hours', lease_expires_at = now() - interval '1 second'")
        .execute(&shop.pool)
        .await
        .expect("the clock is stepped back");
    let permit = shop
        .engine
        .take_over(&key("order"))
        .await
        .expect("an answer")
        .expect("ours");
    assert_eq!(permit.claim().age, None);
    let fence = shop.engine.fence(&permit).await.expect("an answer");
    assert_eq!(fence, Fence::Held { age: None });
}

/// Another service's keys may be in the same table.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn recovery_leaves_operations_alone_that_it_does_not_know(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let shop = Shop::open(&db, NEVER).await;
    drop(shop.claim("book_room").await);
    end_leases(&shop.pool).await;
    let mut recovery = Recovery::new(service.payments.clone());
    let summary = recovery.run_once().await.expect("a pass");
    assert_eq!(summary.found, 0);
    let (attempt, owner): (i32, uuid::Uuid) =
        sqlx::query_as("select attempt, owner from idempotency_keys where operation = 'book_room'")
            .fetch_one(&shop.pool)
            .await
            .expect("the key");
    assert_eq!((attempt, owner), (1, shop.engine.owner()));
    // Nor does work in one transaction take over what belongs to a two-phase operation of its name.
    let (scope, request) = (key("book_room"), json!({}));
    let work = async |_| -> Result<Outcome, sqlx::Error> { panic!("it is not its to execute") };
    let executed = service.payments.engine().execute(&scope, &request, work);
    assert!(executed.await.is_err());
    let attempt: i32 = sqlx::query_scalar("select attempt from idempotency_keys")
        .fetch_one(&shop.pool)
        .await
        .expect("the key");
    assert_eq!(attempt, 1);
}
