//! One merchant at full load, and the payments of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use crate::support::process::{Server, merchant};
use crate::support::service::{Answer, Merchant, Request, Service, Setup, repeated};

/// Number of connections that send in a tight loop. In a shared queue, the other merchant's payment would wait for all of theirs.
const STORM: usize = 400;

/// The size of a group: the other's payment always waits for the group that is being committed.
const GROUP_SIZE: &str = "8";

/// As on a slow disk: each group of claims takes its time, so that the storm waits in the queue, and not for a processor.
const SLOW_DISK: &str = "
    create function wait() returns trigger language plpgsql as
        'begin perform pg_sleep(0.02); return null; end';
    create trigger wait after insert on idempotency_keys for each statement execute function wait()";

/// Payments of the other merchant.
const REQUESTS: usize = 20;

/// A merchant that pays as often as it can, on a thread of its own, until it is dropped.
struct Storm {
    ends: Arc<AtomicBool>,
    paid: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    fn of(merchant: &Merchant) -> Self {
        let (ends, paid) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let connections: Vec<_> = (0..STORM)
            .map(|connection| {
                let (merchant, ends, paid) =
                    (merchant.clone(), Arc::clone(&ends), Arc::clone(&paid));
                pay_on(merchant, ends, paid, format!("storm-{connection}"))
            })
            .collect();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let storm = futures_util::future::join_all(connections);
            drop(runtime.expect("a runtime").block_on(storm));
        });
        Self {
            ends,
            paid,
            thread: Some(thread),
        }
    }

    fn paid(&self) -> u64 {
        self.paid.load(Ordering::Relaxed)
    }
}

async fn pay_on(merchant: Merchant, ends: Arc<AtomicBool>, paid: Arc<AtomicU64>, name: String) {
    for n in 0.. {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let pay = merchant.pay("10").key(&format!("{name}-{n}"));
        if pay.send().await.status == 201 {
            paid.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn beside_a_merchant_at_full_load_another_does_not_stand_in_one_line_with_it(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let settings = [
        ("PAYONCE_LOG", "warn,payonce::cli=info"),
        ("PAYONCE_GROUP_SIZE", GROUP_SIZE),
        ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "0s"),
    ];
    let server = Server::start(&db, &settings);
    let mut other = PgConnection::connect_with(&db).await.expect("connected");
    let slowed = sqlx::raw_sql(SLOW_DISK).execute(&mut other).await;
    slowed.expect("slowed down");
    let stormy = merchant(&db, &server.url, "stormy");
    let calm = merchant(&db, &server.url, "calm");
    let storm = Storm::of(&stormy);
    while storm.paid() < STORM as u64 {
        crate::support::pause().await;
    }
    // The number of the storm's payments during one of the other's: a count, which does not depend on the machine's speed.
    let mut overtaken = Vec::new();
    for n in 0..REQUESTS {
        let before = storm.paid();
        let pay = calm.pay("10").key(&format!("calm-{n}"));
        let paid = repeated(async || pay.send().await).await;
        assert_eq!(paid.status, 201, "{}\n{}", paid.json(), server.log());
        overtaken.push(storm.paid() - before);
    }
    drop(storm);
    overtaken.sort_unstable();
    assert!(
        overtaken[REQUESTS / 2] < STORM as u64 / 2,
        "payments of the storm during each: {overtaken:?}"
    );
    println!("fairness: payments of the storm during one of another merchant's: {overtaken:?}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn reads_that_hang_leave_the_other_merchants_their_connections(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let setup = Setup {
        connections: 8,
        ..Setup::default()
    };
    let service = Service::start_with(&db, setup).await;
    let (stormy, calm) = (
        service.merchant("stormy").await,
        service.merchant("calm").await,
    );
    assert_eq!(calm.pay("10").key("k").send().await.status, 201);
    let mut other = PgConnection::connect_with(&db).await.expect("connected");
    let mut holding = other.begin().await.expect("begun");
    sqlx::raw_sql("lock table refunds in access exclusive mode")
        .execute(&mut *holding)
        .await
        .expect("locked");
    let hanging: Vec<_> = (0..50)
        .map(|_| {
            let stormy = stormy.clone();
            tokio::spawn(async move { stormy.get("/v1/refunds/ref_x").await })
        })
        .collect();
    let waiting =
        "select count(*) from pg_locks where not granted and relation = 'refunds'::regclass";
    let deadline = Instant::now() + Duration::from_secs(20);
    // A quarter of eight.
    while sqlx::query_scalar::<_, i64>(waiting)
        .fetch_one(&mut *holding)
        .await
        .expect("counted")
        < 2
    {
        assert!(Instant::now() < deadline, "they do not hang");
        crate::support::pause().await;
    }
    for _ in 0..20 {
        let record = calm.get("/v1/idempotency-keys/create_payment/k");
        let record = timeout(Duration::from_secs(20), record).await;
        assert_eq!(record.expect("at once").status, 200);
    }
    holding.rollback().await.expect("let go");
    for hung in hanging {
        let status = hung.await.expect("answered").status.as_u16();
        assert!(matches!(status, 404 | 503), "{status}");
    }
}

/// Sends a refund of a payment whose row is held, again and again while it is.
async fn insist(refund: Request, is_held: Arc<AtomicBool>) -> Answer {
    loop {
        let answer = refund.send().await;
        match answer.status.as_u16() {
            201 => return answer,
            // The request that waits in the database, because the row is held for longer than it waits.
            409 if answer.text("code") == "payment-busy" => {}
            409 => answer.assert_problem(409, "idempotency-key-in-use", "same-key"),
            // On a busy machine it may get no connection in its time.
            503 if answer.text("code") == "database-unavailable" => {}
            _ => answer.assert_problem(503, "overloaded", "same-key"),
        }
        if !is_held.load(Ordering::Relaxed) {
            return answer;
        }
        crate::support::pause().await;
    }
}

/// Sessions of this database that wait for a row.
async fn waiting_for_a_row(connection: &mut PgConnection) -> i64 {
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let waiting = sqlx::query_scalar(waiting).fetch_one(connection).await;
    waiting.expect("a count")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn refunds_that_wait_for_their_payment_leave_the_other_merchants_their_connections(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let setup = Setup {
        connections: 8,
        ..Setup::default()
    };
    let service = Service::start_with(&db, setup).await;
    let (stormy, calm) = (
        service.merchant("stormy").await,
        service.merchant("calm").await,
    );
    let paid = stormy.pay("100").key("k").send().await.text("id");
    let other = stormy.pay("100").key("other").send().await.text("id");
    let calms = calm.pay("100").key("k").send().await.text("id");
    let mut holder = PgConnection::connect_with(&db).await.expect("connected");
    let mut holding = holder.begin().await.expect("begun");
    sqlx::query("select 1 from payments where payment_id = $1 for update")
        .bind(&paid)
        .execute(&mut *holding)
        .await
        .expect("locked");
    let refund = |merchant: &Merchant, payment: &str, key: String| {
        let path = format!("/v1/payments/{payment}/refunds");
        merchant
            .post(&path, serde_json::json!({"amount": 1}))
            .key(&key)
    };
    let is_held = Arc::new(AtomicBool::new(true));
    let hanging: Vec<_> = (0..50)
        .map(|n| refund(&stormy, &paid, format!("storm-{n}")))
        .map(|refund| tokio::spawn(insist(refund, Arc::clone(&is_held))))
        .collect();
    while waiting_for_a_row(&mut holding).await == 0 {
        let all_insist = !hanging.iter().any(tokio::task::JoinHandle::is_finished);
        assert!(all_insist, "none of them can be done while the row is held");
        crate::support::pause().await;
    }
    for n in 0..10 {
        let key = format!("calm-{n}");
        let path = format!("/v1/payments/{calms}");
        let read = repeated(async || calm.get(&path).await).await;
        assert_eq!(read.status, 200);
        let refunded = refund(&calm, &calms, key.clone());
        let refunded = repeated(async || refunded.send().await).await;
        assert_eq!(refunded.status, 201);
        let paid = calm.pay("10").key(&key);
        let paid = repeated(async || paid.send().await).await;
        assert_eq!(paid.status, 201);
        // It may be none: on a slow machine the request gives up before this loop ends.
        let waiting = waiting_for_a_row(&mut holding).await;
        assert!(waiting <= 1, "{waiting} wait, not one for all of them");
    }
    // Nor does it hold up the same merchant's other payments.
    let refunded = refund(&stormy, &other, "other".to_owned());
    let refunded = repeated(async || refunded.send().await).await;
    assert_eq!(refunded.status, 201);
    is_held.store(false, Ordering::Relaxed);
    holding.rollback().await.expect("let go");
    let mut done = 0;
    for hung in hanging {
        done += usize::from(hung.await.expect("answered").status == 201);
    }
    // The refused request has left nothing: the same key works now.
    let late = refund(&stormy, &paid, "storm-49".to_owned());
    let late = repeated(async || late.send().await).await;
    assert_eq!(late.status, 201);
    let refunds = stormy.get(&format!("/v1/payments/{paid}/refunds")).await;
    let refunds = refunds.json()["data"].as_array().map_or(0, Vec::len);
    assert!(
        refunds == done || refunds == done + 1,
        "{refunds} after {done}"
    );
}
