//! What an engine does with a request's own time, with a failure's writes, and with a request without a key.

use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio::sync::oneshot;

use crate::{
    Answer, Engine, FingerprintSecrets, IdempotencyConfig, IdempotencyError, IdempotencyKey,
    Outcome, ScopedKey, SignedRequest, StoredResponse, Transaction, Wait,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn engine(database: &PgConnectOptions) -> Engine {
    let secrets = FingerprintSecrets::new("secret");
    let engine = Engine::connect(database.clone(), 2, IdempotencyConfig::default(), &secrets).await;
    let engine = engine.expect("a fit database");
    sqlx::raw_sql("set client_min_messages = error; create table if not exists orders (sku text)")
        .execute(engine.pool())
        .await
        .expect("a table");
    engine
}

async fn insert(transaction: &mut Transaction, sku: &str) -> sqlx::Result<()> {
    let insert = sqlx::query("insert into orders values ($1)").bind(sku.to_owned());
    insert.execute(&mut **transaction).await.map(drop)
}

async fn skus(pool: &PgPool) -> Vec<String> {
    let skus = sqlx::query_scalar("select sku from orders order by sku");
    skus.fetch_all(pool).await.expect("orders")
}

fn sign(engine: &Engine, key: &str) -> SignedRequest {
    let scope = ScopedKey::new("acme", "order", IdempotencyKey::new(key).expect("a key"));
    engine.sign(scope, &json!({"sku": "tea"})).expect("signed")
}

/// Executes a request that is to be remembered for `ttl`.
async fn execute(engine: &Engine, key: &str, ttl: Option<Duration>) -> Answer {
    let signed = sign(engine, key);
    let signed = match ttl {
        Some(ttl) => signed.with_ttl(ttl),
        None => signed,
    };
    let work = async |mut transaction| {
        insert(&mut transaction, "tea").await?;
        let response = StoredResponse::json(201, &"ordered").map_err(sqlx::Error::decode)?;
        Ok::<_, sqlx::Error>(Outcome::Completed(response))
    };
    let answer = engine.execute_signed(signed, Wait::Configured, work).await;
    answer.expect("an answer")
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_request_is_remembered_for_a_time_of_its_own(
    _: PgPoolOptions,
    database: PgConnectOptions,
) {
    let first = engine(&database).await;
    for (key, ttl) in [("brief", Some(HOUR)), ("as-configured", None)] {
        assert!(!execute(&first, key, ttl).await.replayed, "{key}");
        assert!(execute(&first, key, ttl).await.replayed, "{key}");
    }
    let lifetimes: Vec<(String, i64)> = sqlx::query_as(
        "select key, extract(epoch from expires_at - created_at)::int8 from idempotency_keys order by key desc",
    )
    .fetch_all(first.pool())
    .await
    .expect("two keys");
    assert_eq!(
        lifetimes,
        [
            ("brief".to_owned(), 3600),
            ("as-configured".to_owned(), 86_400)
        ]
    );
    // Two hours later, in a process that remembers neither.
    sqlx::query(
        "update idempotency_keys set created_at = created_at - interval '2 hours',
             completed_at = completed_at - interval '2 hours', expires_at = expires_at - interval '2 hours'",
    )
    .execute(first.pool())
    .await
    .expect("moved");
    let later = engine(&database).await;
    assert!(!execute(&later, "brief", Some(HOUR)).await.replayed);
    assert!(execute(&later, "as-configured", None).await.replayed);
    assert_eq!(skus(later.pool()).await.len(), 3);
    first.pool().close().await;
    later.pool().close().await;
}

fn sold_out() -> sqlx::Result<Outcome> {
    let response = StoredResponse::json(409, &"sold out").map_err(sqlx::Error::decode)?;
    Ok(Outcome::Failed(response))
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_failure_is_stored_and_its_writes_are_undone(
    _: PgPoolOptions,
    database: PgConnectOptions,
) {
    let engine = engine(&database).await;
    let work = async |mut transaction| {
        insert(&mut transaction, "undone").await?;
        // Its transaction is of no more use.
        drop(sqlx::query("select 1 / 0").execute(&mut *transaction).await);
        sold_out()
    };
    let answer = engine.execute_signed(sign(&engine, "k"), Wait::Configured, work);
    let answer = answer.await.expect("an answer");
    assert!(!answer.replayed && answer.response.status == 409);
    let again = execute(&engine, "k", None).await;
    assert!(again.replayed && again.response.status == 409);
    assert!(skus(engine.pool()).await.is_empty());
    engine.pool().close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn work_that_deletes_its_own_key_is_refused(_: PgPoolOptions, database: PgConnectOptions) {
    let engine = engine(&database).await;
    let work = async |mut transaction| {
        insert(&mut transaction, "undone").await?;
        let delete = sqlx::query("delete from idempotency_keys");
        delete.execute(&mut *transaction).await?;
        let response = StoredResponse::json(201, &"ordered").map_err(sqlx::Error::decode)?;
        Ok::<_, sqlx::Error>(Outcome::Completed(response))
    };
    let answer = engine.execute_signed(sign(&engine, "k"), Wait::Configured, work);
    assert!(matches!(
        answer.await,
        Err(IdempotencyError::Aborted("it deleted its own key"))
    ));
    assert!(skus(engine.pool()).await.is_empty());
    engine.pool().close().await;
}

/// A `begin` that is dropped ends the transaction, and one that is forgotten would be all that a commit commits.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn work_that_loses_its_transaction_is_refused(_: PgPoolOptions, database: PgConnectOptions) {
    let engine = engine(&database).await;
    let dropped = engine.transact(async |mut transaction| {
        insert(&mut transaction, "undone").await?;
        assert!(transaction.begin().now_or_never().is_none());
        Ok::<_, sqlx::Error>(())
    });
    assert!(matches!(dropped.await, Err(IdempotencyError::Aborted(_))));
    let forgotten = engine.transact(async |mut transaction| {
        std::mem::forget(transaction.begin().await?);
        insert(&mut transaction, "undone").await
    });
    assert!(matches!(forgotten.await, Err(IdempotencyError::Aborted(_))));
    assert!(skus(engine.pool()).await.is_empty());
    engine.pool().close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn work_without_a_key_is_kept_where_it_succeeds(
    _: PgPoolOptions,
    database: PgConnectOptions,
) {
    let engine = engine(&database).await;
    let kept = engine.transact(async |mut transaction| {
        insert(&mut transaction, "kept").await?;
        Ok::<_, sqlx::Error>(7)
    });
    assert_eq!(kept.await.expect("committed"), 7);
    let failed = engine.transact::<(), _, _, _>(async |mut transaction| {
        insert(&mut transaction, "undone").await?;
        Err(Box::<dyn std::error::Error + Send + Sync>::from("no"))
    });
    assert!(matches!(failed.await, Err(IdempotencyError::Work(why)) if why.to_string() == "no"));
    // It says that it succeeded, and its transaction had failed.
    let swallowed = engine.transact(async |mut transaction| {
        insert(&mut transaction, "lost").await?;
        drop(sqlx::query("select 1 / 0").execute(&mut *transaction).await);
        Ok::<_, sqlx::Error>(())
    });
    assert!(matches!(
        swallowed.await,
        Err(IdempotencyError::Database(_))
    ));
    assert_eq!(skus(engine.pool()).await, ["kept"]);
    let keys: i64 = sqlx::query_scalar("select count(*) from idempotency_keys")
        .fetch_one(engine.pool())
        .await
        .expect("a number");
    assert_eq!(keys, 0);
    engine.pool().close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_caller_that_goes_away_stops_no_work_without_a_key(
    _: PgPoolOptions,
    database: PgConnectOptions,
) {
    let engine = engine(&database).await;
    let (entered, is_entered) = oneshot::channel();
    let (open, is_open) = oneshot::channel::<()>();
    let caller = tokio::spawn({
        let engine = engine.clone();
        let work = async move |mut transaction: Transaction| {
            entered.send(()).expect("the test waits");
            is_open.await.expect("the test opens");
            insert(&mut transaction, "tea").await
        };
        async move { engine.transact(work).await }
    });
    is_entered.await.expect("it began");
    caller.abort();
    assert!(caller.await.is_err_and(|error| error.is_cancelled()));
    open.send(()).expect("it is still at work");
    engine.finish().await;
    assert_eq!(skus(engine.pool()).await, ["tea"]);
    engine.pool().close().await;
}
