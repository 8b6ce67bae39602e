//! The connection is lost at the critical moment: the outcome of a commit whose answer was lost is read back, never guessed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use payonce::database::pool_options;
use payonce::idempotency::{
    Engine, FingerprintSecrets, IdempotencyConfig, IdempotencyError, IdempotencyKey, Outcome,
    ScopedKey, StoredResponse, Transaction,
};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::proxy::{Break, Proxy};
use crate::support::scripted::ScriptedGateway;
use crate::support::service::{Service, Setup, count};

/// Recovery is off, so that the request itself finds the outcome.
fn setup() -> Setup {
    Setup {
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payment_survives_the_loss_of_its_claim_or_its_settle(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let proxy = Proxy::start(&db);
    let service = Service::start_with(&proxy.options(), setup()).await;
    let acme = service.merchant("acme").await;
    // A payment's key is sent twice: with the claim, and with the settle.
    for (round, (key, skip, breaks)) in [
        ("claim-unsent", 0, Break::Request),
        ("claim-unanswered", 0, Break::Answer),
        ("settle-unsent", 1, Break::Request),
        ("settle-unanswered", 1, Break::Answer),
    ]
    .into_iter()
    .enumerate()
    {
        proxy.break_at(key, skip, breaks);
        let paid = acme.pay("10").key(key).send().await;
        assert_eq!(proxy.broke(), round + 1, "{key}");
        assert_eq!(
            (paid.status.as_u16(), paid.replayed()),
            (201, false),
            "{key}"
        );
        let again = acme.pay("10").key(key).send().await;
        assert!(again.replayed());
        assert_eq!(again.bytes, paid.bytes, "{key}");
        // A node with nothing in memory gives the same answer.
        let stored: Vec<u8> =
            sqlx::query_scalar("select response_body from idempotency_keys where key = $1")
                .bind(key)
                .fetch_one(&service.pool)
                .await
                .expect("the row");
        assert_eq!(stored, paid.bytes, "{key}");
        assert_eq!(
            service.count("payments").await,
            i64::try_from(round + 1).expect("few")
        );
        assert_eq!(service.gateway.charges(), round + 1, "{key}");
    }
    assert_eq!(service.count("unsettled_keys").await, 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refund_survives_the_loss_of_its_settle(_: PgPoolOptions, db: PgConnectOptions) {
    let proxy = Proxy::start(&db);
    let service = Service::start_with(&proxy.options(), setup()).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10.00").key("p").send().await.text("id");
    let path = format!("/v1/payments/{id}/refunds");
    for (key, breaks) in [("unsent", Break::Request), ("unanswered", Break::Answer)] {
        // The claim commits, the settle's commit is lost.
        proxy.break_at("COMMIT", 1, breaks);
        let refund = acme
            .post(&path, json!({"amount": "3"}))
            .key(key)
            .send()
            .await;
        assert_eq!(
            (refund.status.as_u16(), refund.replayed()),
            (201, false),
            "{key}"
        );
        assert_eq!(refund.text("state"), "SUCCESS");
        let again = acme.post(&path, json!({"amount": 3})).key(key).send().await;
        assert_eq!(again.bytes, refund.bytes);
    }
    assert_eq!(proxy.broke(), 2);
    let shown = acme.get(&format!("/v1/payments/{id}")).await;
    assert_eq!(
        shown.text("amountRefunded"),
        "6.00",
        "each was counted once"
    );
    assert_eq!(service.count("unsettled_keys").await, 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refund_survives_the_loss_of_its_claim(_: PgPoolOptions, db: PgConnectOptions) {
    let proxy = Proxy::start(&db);
    let service = Service::start_with(&proxy.options(), setup()).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10.00").key("p").send().await.text("id");
    let path = format!("/v1/payments/{id}/refunds");
    // The claim commits, but the answer is lost.
    proxy.break_at("COMMIT", 0, Break::Answer);
    let refund = acme.post(&path, json!({"amount": "3"})).key("r");
    let answer = refund.send().await;
    assert_eq!(proxy.broke(), 1);
    assert_eq!((answer.status.as_u16(), answer.replayed()), (201, false));
    assert_eq!(service.gateway.adjustments(), 1);
    assert!(refund.send().await.replayed());
    assert_eq!(service.count("unsettled_keys").await, 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_outcome_that_cannot_be_stored_is_unknown_and_found_later(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let proxy = Proxy::start(&db);
    let gateway = ScriptedGateway::new(&[]);
    let timeout = Duration::from_secs(10);
    let service = Service::start_on(&proxy.options(), setup(), gateway.clone(), timeout).await;
    let acme = service.merchant("acme").await;
    proxy.break_for_good_at("far", 1, Break::Request);
    let lost = acme.pay("10").key("far").send().await;
    lost.assert_problem(503, "outcome-unknown", "same-key");
    assert_eq!(gateway.asked().len(), 1, "the gateway had been called");
    proxy.mend();
    // Its lease has ended; otherwise the request would wait for it.
    let found = acme.pay("10").key("far").send().await;
    assert_eq!(found.status, 201);
    let asked = gateway.asked();
    assert!(
        asked.iter().all(|call| *call == asked[0]),
        "one charge, by its one name: {asked:?}"
    );
    assert_eq!(service.count("payments").await, 1);
}

fn key(key: &str) -> ScopedKey {
    ScopedKey::new("acme", "order", IdempotencyKey::new(key).expect("a key"))
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_transactions_lost_commit_is_read_back(_: PgPoolOptions, db: PgConnectOptions) {
    let proxy = Proxy::start(&db);
    let pool = pool_options()
        .max_connections(3)
        .connect_with(proxy.options())
        .await
        .expect("a pool");
    sqlx::query("create table orders (sku text)")
        .execute(&pool)
        .await
        .expect("a table");
    let secrets = FingerprintSecrets::new("secret");
    let engine = Engine::start(pool.clone(), IdempotencyConfig::default(), &secrets)
        .await
        .expect("a fit pool");
    let runs = Arc::new(AtomicUsize::new(0));
    let work = {
        let runs = Arc::clone(&runs);
        async move |mut tx: Transaction| {
            runs.fetch_add(1, Ordering::SeqCst);
            sqlx::query("insert into orders values ('tea')")
                .execute(&mut *tx)
                .await?;
            let answer = StoredResponse::json(201, &"ordered").map_err(sqlx::Error::decode)?;
            Ok::<_, sqlx::Error>(Outcome::Completed(answer))
        }
    };
    proxy.break_at("COMMIT", 0, Break::Answer);
    let answer = engine
        .execute(&key("unanswered"), &1, work.clone())
        .await
        .expect("it was committed");
    assert!(!answer.replayed);
    assert_eq!(
        (runs.load(Ordering::SeqCst), count(&pool, "orders").await),
        (1, 1)
    );

    // Not committed: there are no rows, and the error says that the same key may be used again.
    proxy.break_at("COMMIT", 0, Break::Request);
    let lost = engine.execute(&key("unsent"), &1, work.clone()).await;
    assert!(matches!(lost, Err(IdempotencyError::Database(_))));
    assert_eq!(proxy.broke(), 2);
    assert_eq!(
        (
            count(&pool, "orders").await,
            count(&pool, "idempotency_keys").await
        ),
        (1, 1)
    );
    let answer = engine
        .execute(&key("unsent"), &1, work)
        .await
        .expect("a first request");
    assert!(!answer.replayed);
    assert_eq!(count(&pool, "orders").await, 2);
    pool.close().await;
}
