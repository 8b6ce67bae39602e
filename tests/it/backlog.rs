//! A dead node's backlog, and takeovers by the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::gateway::{Endpoint, Fault, TestGateway};
use crate::support::process::{Server, merchant};
use crate::support::rows::multiply;
use crate::support::service::{Merchant, count, until_unsettled};

const BACKLOG: u32 = 10_000;

/// Number of clients. Each pays again and again, without a pause.
const PAYERS: usize = 8;

/// Clients that pay until they are dropped.
struct Payers {
    paid: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// A database that is too slow for this many tries in a row is held up.
const MAX_REPEATS: usize = 3;

impl Payers {
    fn start(acme: &Merchant) -> Self {
        let (paid, over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let tasks = (0..PAYERS)
            .map(|payer| {
                let (acme, paid, over) = (acme.clone(), Arc::clone(&paid), Arc::clone(&over));
                tokio::spawn(async move {
                    for n in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        let pay = acme.pay("10").key(&format!("fresh-{payer}-{n}"));
                        let mut answer = pay.send().await;
                        // A loaded machine's database may be too slow for a try. Clients repeat that one.
                        for _ in 0..MAX_REPEATS {
                            if answer.status != 503 {
                                break;
                            }
                            answer = pay.send().await;
                        }
                        assert_eq!(answer.status, 201, "{answer:?}");
                        paid.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self { paid, over, tasks }
    }

    fn paid(&self) -> u64 {
        self.paid.load(Ordering::Relaxed)
    }

    async fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("every payment was made");
        }
    }
}

/// A server dies in the middle of a payment, whose rows are then copied many times.
async fn leave_backlog(db: &PgConnectOptions, pool: &PgPool) -> Merchant {
    let mut dying = Server::start(
        db,
        &[
            ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "30s"),
            ("PAYONCE_GATEWAY_TIMEOUT", "60s"),
        ],
    );
    let acme = merchant(db, &dying.url, "acme");
    let lost = {
        let request = acme.pay("10").key("left-0");
        tokio::spawn(async move { request.try_send().await.is_err() })
    };
    until_unsettled(pool, 1).await;
    dying.kill();
    assert!(lost.await.expect("no panic"), "its client got no answer");
    multiply(pool, BACKLOG - 1, "left-").await;
    sqlx::query("update idempotency_keys set lease_expires_at = 'infinity'")
        .execute(pool)
        .await
        .expect("the rows' time is moved");
    acme
}

async fn until_backlog_is(pool: &PgPool, left: i64) {
    while sqlx::query_scalar::<_, i64>(
        "select count(*) from idempotency_keys where key like 'left-%' and state = 'PROCESSING'",
    )
    .fetch_one(pool)
    .await
    .expect("a count")
        > left
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn ten_thousand_keys_left_behind_do_not_hold_up_fresh_payments(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(db.clone())
        .await
        .expect("a pool");
    let acme = leave_backlog(&db, &pool).await;
    let server = Server::start(
        &db,
        &[
            ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "0s"),
            ("PAYONCE_RECOVERY_INTERVAL", "100ms"),
            ("PAYONCE_LOG", "warn,payonce::cli=info"),
        ],
    );
    let payers = Payers::start(&Merchant {
        url: server.url.clone(),
        ..acme
    });
    // The leases end only now.
    sqlx::query(
        "update idempotency_keys set lease_expires_at = now() where lease_expires_at = 'infinity'",
    )
    .execute(&pool)
    .await
    .expect("the rows' time is moved");
    let paid_before = payers.paid();
    until_backlog_is(&pool, 0).await;
    let fresh = payers.paid() - paid_before;
    payers.stop().await;
    println!("backlog: {fresh} fresh payments beside {BACKLOG} keys left behind");
    // Both kinds of work ran at the same time on the same machine, so their shares show which one was held up.
    assert!(
        fresh >= u64::from(BACKLOG) / 4,
        "{fresh} fresh payments beside {BACKLOG} of the backlog"
    );
    assert_eq!(count(&pool, "unsettled_keys").await, 0);
    let paid: i64 = sqlx::query_scalar(
        "select count(*) from payments where idempotency_key like 'left-%' and state = 'SUCCESS'",
    )
    .fetch_one(&pool)
    .await
    .expect("a count");
    assert_eq!(paid, i64::from(BACKLOG));
    pool.close().await;
}

const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

fn node(db: &PgConnectOptions, gateway: &TestGateway) -> Server {
    Server::start_on(
        &gateway.url(),
        db,
        &[
            ("PAYONCE_LOCK_TIMEOUT", "1s"),
            ("PAYONCE_RECOVERY_INTERVAL", "100ms"),
        ],
    )
}

/// Two nodes, of which the first is killed while the gateway works on a charge that it made. Its client goes to the other,
/// or does not.
async fn killed_in_the_call(db: &PgConnectOptions, returns: bool) -> Duration {
    let gateway = TestGateway::start();
    let (mut first, second) = (node(db, &gateway), node(db, &gateway));
    let acme = merchant(db, &first.url, "acme");
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let request = acme.pay("10").key("k");
    let lost = {
        let request = request.clone();
        tokio::spawn(async move { request.try_send().await.is_err() })
    };
    gateway.until_executed(Endpoint::Charge, 1).await;
    first.kill();
    let killed = Instant::now();
    gateway.release();
    assert!(lost.await.expect("no panic"), "its client got no answer");
    let request = request.at(&second.url);
    if returns {
        let answer = request.send().await;
        assert_eq!(answer.status, 201, "in the wait of one request: {answer:?}");
    } else {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(db.clone())
            .await
            .expect("a pool");
        until_unsettled(&pool, 0).await;
        pool.close().await;
    }
    let took = killed.elapsed();
    assert_eq!(request.send().await.status, 201);
    assert_eq!(gateway.ledger().charges.len(), 1);
    took
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn another_node_takes_over_in_the_wait_of_one_request(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let took = killed_in_the_call(&db, true).await;
    println!("takeover: {took:?} after the kill, lock time-out {LOCK_TIMEOUT:?}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_nobody_asks_for_again_is_recovered(_: PgPoolOptions, db: PgConnectOptions) {
    let took = killed_in_the_call(&db, false).await;
    println!("recovery: {took:?} after the kill, lock time-out {LOCK_TIMEOUT:?}");
}
