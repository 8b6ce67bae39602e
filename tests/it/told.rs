//! The answer to a client is true of its key, not only of this request: "nothing was charged" is said where nothing can be charged
//! any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use payonce::database::pool_options;
use payonce::gateway::Gateway;
use payonce::idempotency::{
    Engine, FingerprintSecrets, Gate, IdempotencyConfig, IdempotencyKey, Plan, ScopedKey, Wait,
};
use payonce::problem::Code;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::oneshot;

use crate::support::proxy::{Break, Proxy};
use crate::support::scripted::{ScriptedGateway, Turn};
use crate::support::service::{Service, Setup};

/// Only what never happens runs into it.
const PATIENCE: Duration = Duration::from_secs(30);

async fn behind(proxy: &Proxy, gateway: &Arc<ScriptedGateway>, recovery: Duration) -> Service {
    let setup = Setup {
        recovery_interval: recovery,
        idempotency: IdempotencyConfig::default().with_lock_timeout(Duration::from_millis(500)),
        ..Setup::default()
    };
    let gateway: Arc<dyn Gateway> = gateway.clone();
    Service::start_on(&proxy.options(), setup, gateway, Duration::from_secs(10)).await
}

/// The claim is committed, its answer is lost, and the database is away: recovery charges later.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_claim_that_may_be_committed_is_unknown(_: PgPoolOptions, db: PgConnectOptions) {
    let proxy = Proxy::start(&db);
    let gateway = ScriptedGateway::new(&[]);
    let service = behind(&proxy, &gateway, Duration::from_millis(100)).await;
    let acme = service.merchant("acme").await;
    proxy.break_for_good_at("lost", 0, Break::Answer);
    let lost = acme.pay("10").key("lost").send().await;
    lost.assert_problem(503, "outcome-unknown", "same-key");
    assert_eq!(lost.text("charged"), "unknown");
    assert_eq!(gateway.charges(), 0);
    proxy.mend();
    let began = Instant::now();
    let paid = loop {
        let answer = acme.pay("10").key("lost").send().await;
        if answer.status == 201 {
            break answer;
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
        crate::support::pause().await;
    };
    assert_eq!(paid.text("state"), "SUCCESS");
    assert_eq!(gateway.charges(), 1);
}

/// The claim is to be given back, and the database is away: it stays, and recovery makes its call.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_claim_that_cannot_be_given_back_is_unknown(_: PgPoolOptions, db: PgConnectOptions) {
    let proxy = Proxy::start(&db);
    let gateway = ScriptedGateway::new(&[Turn::Nothing]);
    let service = behind(&proxy, &gateway, Duration::from_millis(100)).await;
    let acme = service.merchant("acme").await;
    proxy.break_for_good_at("delete from idempotency_keys", 0, Break::Request);
    let lost = acme.pay("10").key("k").send().await;
    assert_eq!(proxy.broke(), 1);
    lost.assert_problem(503, "outcome-unknown", "same-key");
    proxy.mend();
    let began = Instant::now();
    while acme.pay("10").key("k").send().await.status != 201 {
        assert!(began.elapsed() < PATIENCE);
        crate::support::pause().await;
    }
    assert_eq!(service.count("payments").await, 1);
}

/// A key that was charged long ago is not looked at while the database is away.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn without_the_database_nothing_is_said_of_the_key(_: PgPoolOptions, db: PgConnectOptions) {
    let proxy = Proxy::start(&db);
    let gateway = ScriptedGateway::new(&[]);
    let first = Service::start(&db).await;
    let acme = first.merchant("acme").await;
    assert_eq!(acme.pay("10").key("paid").send().await.status, 201);
    let second = behind(&proxy, &gateway, Duration::from_secs(3600)).await;
    // The API key is remembered; what the payment's key made is not.
    assert_eq!(acme.at(&second).get("/v1/payments").await.status, 200);
    proxy.break_for_good_at("select", 0, Break::Request);
    let ask = acme.at(&second).get("/v1/payments/pay_x").await;
    assert_ne!(ask.status, 200);
    let refused = acme.at(&second).pay("10").key("paid").send().await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["retry"], "same-key");
    assert_ne!(refused.json()["charged"], "no", "{:?}", refused.json());
    assert_eq!(gateway.charges(), 0);
}

/// The texts of problems from before the key is looked up say nothing about the key.
#[test]
fn what_is_told_before_the_key_is_looked_at_is_of_this_request_alone() {
    let before = [
        Code::Unauthorized,
        Code::NotAcceptable,
        Code::RateLimited,
        Code::RequestTimeout,
        Code::DatabaseUnavailable,
        Code::Overloaded,
    ];
    for code in before {
        let told = code.what_was_charged();
        assert!(told.starts_with("This request"), "{code:?}: {told}");
        assert!(told.contains("earlier"), "{code:?}: {told}");
    }
    for code in Code::ALL {
        assert_ne!(code.what_was_charged(), "Nothing was charged.", "{code:?}");
    }
}

fn key() -> ScopedKey {
    ScopedKey::new("acme", "order", IdempotencyKey::new("k").expect("a key"))
}

async fn engine(db: &PgConnectOptions) -> Engine {
    let pool = pool_options()
        .max_connections(4)
        .connect_with(db.clone())
        .await
        .expect("a pool");
    let secrets = FingerprintSecrets::new("secret");
    Engine::start(pool, IdempotencyConfig::default(), &secrets)
        .await
        .expect("a fit pool")
}

/// A request that has no claim yet may end and leave nothing: a corrected one is not refused because of it.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_request_is_no_mismatch_with_one_that_leaves_nothing(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let engine = engine(&db).await;
    let (arrived, has_arrived) = oneshot::channel();
    let (open, gate) = oneshot::channel::<()>();
    let wrong = tokio::spawn({
        let engine = engine.clone();
        async move {
            let plan = async move |_| {
                arrived.send(()).expect("the test");
                gate.await.expect("the test");
                Err::<Plan<()>, _>(sqlx::Error::RowNotFound)
            };
            engine
                .claim(&key(), &json!({"amount": 1}), Wait::Configured, plan)
                .await
                .is_err()
        }
    });
    has_arrived.await.expect("the first is in its plan");
    let plan = async |_| {
        Ok::<_, sqlx::Error>(Plan::Call {
            resource_id: "thing".to_owned(),
            work: (),
        })
    };
    let request = json!({"amount": 2});
    let scope = key();
    let mut corrected = Box::pin(engine.claim(&scope, &request, Wait::Configured, plan));
    assert!(
        futures_util::poll!(corrected.as_mut()).is_pending(),
        "it is not refused while the first may leave nothing"
    );
    open.send(()).expect("the first");
    assert!(wrong.await.expect("no panic"));
    let gate = corrected.await.expect("a gate");
    let Gate::Claimed { permit, .. } = gate else {
        panic!("the key is free");
    };
    // The first has a claim now, so a different request is refused at once.
    let request = json!({"amount": 1});
    let other = engine.claim(&scope, &request, Wait::AtMost(Duration::ZERO), plan);
    assert!(matches!(other.await.expect("a gate"), Gate::Mismatch(_)));
    drop(permit);
}

/// A duplicate that waits for another node's claim lets nobody else wait with it who asks for something else.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_mismatch_with_another_nodes_claim_is_told_beside_a_duplicate_that_waits(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (one, two) = (engine(&db).await, engine(&db).await);
    let plan = async |_| {
        Ok::<_, sqlx::Error>(Plan::Call {
            resource_id: "thing".to_owned(),
            work: (),
        })
    };
    let (scope, request) = (key(), json!({"amount": 1}));
    let first = one.claim(&scope, &request, Wait::Configured, plan);
    let Gate::Claimed { permit, .. } = first.await.expect("a gate") else {
        panic!("the key is free");
    };
    let mut duplicate = Box::pin(two.claim(&scope, &request, Wait::Configured, plan));
    let other = json!({"amount": 2});
    let mismatch = two.claim(&scope, &other, Wait::Configured, plan);
    tokio::select! {
        biased;
        _ = &mut duplicate => panic!("the first is at work"),
        gate = mismatch => assert!(matches!(gate.expect("a gate"), Gate::Mismatch(_))),
    }
    drop(permit);
}

/// A row of a newer version, or of another secret, is compared with nothing.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_record_that_cannot_be_read_is_not_another_request(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    for key in ["newer", "foreign"] {
        assert_eq!(acme.pay("10").key(key).send().await.status, 201);
    }
    sqlx::query("update idempotency_keys set fingerprint_version = 99, fingerprint = sha256('x') where key = 'newer'")
        .execute(&service.pool)
        .await
        .expect("a newer node's row");
    let stranger = Setup {
        secrets: FingerprintSecrets::new("another secret"),
        ..Setup::default()
    };
    let stranger = Service::start_with(&db, stranger).await;
    let other = Service::start(&db).await;
    for (node, key) in [(&other, "newer"), (&stranger, "foreign")] {
        let refused = acme.at(node).pay("10").key(key).send().await;
        refused.assert_problem(503, "outcome-unknown", "same-key");
        assert_eq!(refused.text("charged"), "unknown", "{key}");
    }
    assert_eq!(stranger.gateway.charges() + other.gateway.charges(), 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_database_is_tied_to_its_secrets(_: PgPoolOptions, db: PgConnectOptions) {
    let with = async |secrets: FingerprintSecrets| {
        let pool = pool_options()
            .max_connections(1)
            .connect_with(db.clone())
            .await
            .expect("a pool");
        let engine = Engine::start(pool, IdempotencyConfig::default(), &secrets)
            .await
            .expect("a fit pool");
        let registered = engine.register_secrets().await;
        engine.pool().close().await;
        registered
            .map(|retired| retired.len())
            .map_err(|error| error.to_string())
    };
    assert_eq!(with(FingerprintSecrets::new("old")).await, Ok(0));
    let refused = with(FingerprintSecrets::new("new"))
        .await
        .expect_err("it is another's");
    assert!(refused.contains("another secret"), "{refused}");
    assert!(!refused.contains("new"), "{refused}");
    let rotated = FingerprintSecrets::new("new").accepting("old");
    assert_eq!(with(rotated).await, Ok(0));
    assert_eq!(
        with(FingerprintSecrets::new("new")).await,
        Ok(1),
        "the old one signs no more: a warning"
    );
    assert!(with(FingerprintSecrets::new("old")).await.is_err());
    let back = FingerprintSecrets::new("old").accepting("new");
    assert_eq!(with(back).await, Ok(0));
}
