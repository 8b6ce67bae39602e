//! An owner that is stopped in the middle of its work, loses its claim, and continues late: it then changes nothing.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::worker::{OPERATIONS, Operation, Worker};

/// The steps at which an owner holds a claim but no lock.
const STEPS: [&str; 3] = ["claim-committed", "call-before", "call-answered"];

/// The content of all tables, as one text.
async fn everything(worker: &Worker) -> Vec<String> {
    let mut connection = worker.connect().await;
    sqlx::query_scalar(
        "select to_jsonb(k)::text from idempotency_keys k union all \
         select to_jsonb(p)::text from payments p union all \
         select to_jsonb(r)::text from refunds r order by 1",
    )
    .fetch_all(&mut connection)
    .await
    .expect("all rows")
}

async fn wakes_up_late(worker: &Worker, step: &str, operation: Operation) {
    let key = format!("{step}-{}", operation.name);
    let request = worker.request(operation, &key).await;
    let owner = worker.doomed(&format!("{step}=1*return(stop)"));
    let late = {
        let request = request.clone().at(&owner.url);
        tokio::spawn(async move { request.send().await })
    };
    let stopped = Instant::now();
    while !owner.is_stopped() {
        assert!(
            stopped.elapsed() < Duration::from_secs(20),
            "{key}: it does not stop"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (answer, _) = worker.until_final(&request).await;
    let before = everything(worker).await;
    owner.signal(Signal::SIGCONT);
    let late = late.await.expect("the late owner's client");
    assert_eq!(
        (late.status, &late.bytes),
        (answer.status, &answer.bytes),
        "{key}: the winner's outcome"
    );
    assert!(
        late.replayed(),
        "{key}: it was not the late one that executed"
    );
    assert_eq!(
        everything(worker).await,
        before,
        "{key}: the late settle changed something"
    );
    let attempts: i32 = sqlx::query_scalar(
        "select attempt from idempotency_keys where key = $1 order by created_at desc limit 1",
    )
    .bind(&key)
    .fetch_one(&mut worker.connect().await)
    .await
    .expect("the key");
    assert_eq!(attempts, 2, "{key}: it was taken over once");
    worker.books_agree(operation, &key).await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_owner_that_wakes_up_late_changes_nothing(_: PgPoolOptions, db: PgConnectOptions) {
    let worker = Worker::start(&db);
    for step in STEPS {
        for operation in OPERATIONS {
            wakes_up_late(&worker, step, operation).await;
        }
    }
}

/// An owner that is stopped inside the transaction of its settle holds the key's row. PostgreSQL ends that session, so that the
/// claim can be taken over, and the late commit fails.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_owner_that_stands_still_in_a_transaction_is_ended(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let worker = Worker::start(&db);
    wakes_up_late(&worker, "settle-before-commit", OPERATIONS[3]).await;
    let refunds: Vec<Value> = sqlx::query_scalar("select to_jsonb(r) from refunds r")
        .fetch_all(&mut worker.connect().await)
        .await
        .expect("refunds");
    assert_eq!(refunds.len(), 1);
    assert_eq!(refunds[0]["state"], "SUCCESS");
}
