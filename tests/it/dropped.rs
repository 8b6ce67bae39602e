//! Futures that are dropped at every await: those of the two phases, and those of clients. Every key stays consistent.

use std::time::Duration;

use payonce::database::pool_options;
use payonce::idempotency::{
    Engine, FingerprintSecrets, Gate, IdempotencyConfig, IdempotencyKey, Outcome, Permit, Plan,
    ScopedKey, StoredResponse, Transaction, Wait,
};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{PgPool, Postgres};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::engine::drop_after;
use crate::support::rows::end_leases;
use crate::support::scripted::Turn;
use crate::support::service::{Service, Setup, count, payment};

const CONNECTIONS: u32 = 3;

async fn engine(db: &PgConnectOptions) -> (Engine, PgPool) {
    let pool = pool_options()
        .max_connections(CONNECTIONS)
        .connect_with(db.clone())
        .await
        .expect("a pool");
    sqlx::query("create table if not exists parcels (key text)")
        .execute(&pool)
        .await
        .expect("a table");
    let secrets = FingerprintSecrets::new("secret");
    let config = IdempotencyConfig::default();
    (
        Engine::start(pool.clone(), config, &secrets)
            .await
            .expect("a fit pool"),
        pool,
    )
}

fn scope(round: usize) -> ScopedKey {
    let key = IdempotencyKey::new(format!("k{round}")).expect("a key");
    ScopedKey::new("acme", "send", key)
}

async fn write(tx: &mut Transaction, key: &str) -> sqlx::Result<()> {
    let insert = sqlx::query("insert into parcels values ($1)").bind(key.to_owned());
    insert.execute(&mut **tx).await.map(drop)
}

async fn claim(engine: &Engine, scope: &ScopedKey) -> Option<Permit> {
    let key = scope.key.to_string();
    let plan = async move |mut tx: Transaction| {
        write(&mut tx, &key).await?;
        let resource_id = key;
        Ok::<_, sqlx::Error>(Plan::Call {
            resource_id,
            work: (),
        })
    };
    let wait = Wait::AtMost(Duration::ZERO);
    match engine.claim(scope, &1, wait, plan).await.expect("a gate") {
        Gate::Claimed { permit, .. } | Gate::TakenOver(permit) => Some(permit),
        _ => None,
    }
}

async fn settle(engine: &Engine, permit: Permit) {
    let work = |_: Transaction| async move {
        let answer = StoredResponse::json(200, &"sent").map_err(sqlx::Error::decode)?;
        Ok::<_, sqlx::Error>(Outcome::Completed(answer))
    };
    drop(engine.settle(permit, work).await.expect("an answer"));
}

async fn release(engine: &Engine, permit: Permit) {
    let key = permit.resource_id().to_owned();
    let undo = move |mut tx: Transaction| {
        let delete = sqlx::query("delete from parcels where key = $1").bind(key.clone());
        async move { delete.execute(&mut *tx).await.map(drop) }
    };
    engine
        .release(permit, undo)
        .await
        .map(drop)
        .expect("an answer");
}

/// On a loaded machine the work of dropped futures may take longer than the pool's limit on waiting.
async fn patiently(pool: &PgPool) -> PoolConnection<Postgres> {
    let mut last = None;
    for _ in 0..20 {
        match pool.acquire().await {
            Ok(connection) => return connection,
            Err(error) => last = Some(error),
        }
    }
    panic!("a connection is lost: {last:?}");
}

/// Checks that all connections of the pool are outside of a transaction.
async fn assert_no_transaction_is_lent(pool: &PgPool) {
    let mut lent = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = patiently(pool).await;
        // A savepoint can only be made inside a transaction, and its failure outside of one has no effect.
        let savepoint = sqlx::raw_sql("savepoint inside").execute(&mut *connection);
        let refused = savepoint
            .await
            .expect_err("it was lent inside a transaction");
        let code = refused.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("25P01"), "no_active_sql_transaction");
        lent.push(connection);
    }
}

/// A key in PROCESSING is in `unsettled_keys`, no other is, and each key has its one parcel.
async fn assert_whole(pool: &PgPool) {
    let torn: i64 = sqlx::query_scalar(
        "select count(*)
        from idempotency_keys k
        full join unsettled_keys u using (merchant_id, operation, key)
        full join (select key, count(*) as made from parcels group by key) p using (key)
        where k.key is null
            or p.made is distinct from 1
            or (k.state = 'PROCESSING') is distinct from (u.claimed_at is not null)",
    )
    .fetch_one(pool)
    .await
    .expect("a count");
    assert_eq!(torn, 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn claims_settles_and_releases_are_done_as_a_whole_or_not_at_all(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (engine, pool) = engine(&db).await;
    for round in 0..600 {
        drop_after(claim(&engine, &scope(round)), round % 30).await;
        if round % 100 == 99 {
            assert_no_transaction_is_lent(&pool).await;
        }
    }
    engine.finish().await;
    assert_whole(&pool).await;
    let claimed = count(&pool, "unsettled_keys").await;
    assert!(
        (1..600).contains(&claimed),
        "some were done, some were not: {claimed}"
    );

    // Claims are settled or released, and the futures dropped.
    end_leases(&pool).await;
    for round in 0..600 {
        if let Some(permit) = engine.take_over(&scope(round)).await.expect("an answer") {
            if round % 2 == 0 {
                drop_after(settle(&engine, permit), round % 31).await;
            } else {
                drop_after(release(&engine, permit), round % 31).await;
            }
        }
    }
    engine.finish().await;
    assert_whole(&pool).await;
    assert_no_transaction_is_lent(&pool).await;
    let left = count(&pool, "unsettled_keys").await;
    assert!(
        (1..claimed).contains(&left),
        "some were done, some were not: {left}"
    );

    // The next request continues, and in the end there is one parcel per key.
    end_leases(&pool).await;
    for round in 0..600 {
        if let Some(permit) = claim(&engine, &scope(round)).await {
            settle(&engine, permit).await;
        }
    }
    assert_whole(&pool).await;
    assert_eq!(
        (
            count(&pool, "parcels").await,
            count(&pool, "unsettled_keys").await
        ),
        (600, 0)
    );
    engine.finish().await;
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn clients_that_hang_up_at_any_moment_are_charged_once(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let setup = Setup {
        latency: Duration::from_millis(1),
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    };
    let service = Service::start_with(&db, setup).await;
    let acme = service.merchant("acme").await;
    let mut ended = 0;
    for round in 0..300 {
        let request = acme.pay("10").key(&format!("k{round}"));
        if drop_after(request.send(), round % 50).await {
            ended += 1;
        }
    }
    while service.count("unsettled_keys").await > 0 {
        crate::support::pause().await;
    }
    let begun = service.count("payments").await;
    assert!(
        begun > ended,
        "some were dropped under way: {begun} begun, {ended} ended"
    );
    for round in 0..300 {
        let answer = acme.pay("10").key(&format!("k{round}")).send().await;
        assert_eq!(answer.status, 201);
    }
    assert_eq!(service.count("payments").await, 300);
    assert_eq!(service.gateway.charges(), 300);
}

/// Unlike a normal close, a reset makes the server drop the request's future at once.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_client_that_resets_its_connection_is_charged_once(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let setup = Setup {
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    };
    let service = Service::start_with(&db, setup).await;
    service.gateway.then(&[Turn::Hold]);
    let acme = service.merchant("acme").await;
    let address = acme.url["http://".len()..].to_owned();
    let body = payment("10").to_string();
    let request = format!(
        "POST /v1/payments HTTP/1.1\r\nhost: payonce\r\nauthorization: Bearer {}\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        acme.api_key,
        body.len()
    );
    let mut socket = TcpStream::connect(address).await.expect("connected");
    socket.write_all(request.as_bytes()).await.expect("sent");
    service.until_unsettled(1).await;
    socket.set_zero_linger().expect("a reset at the end");
    drop(socket);
    // The server has seen the reset by the time it has answered others.
    for _ in 0..3 {
        assert_eq!(acme.get("/v1/payments").await.status, 200);
    }
    service.gateway.release();
    service.until_unsettled(0).await;
    let again = acme.pay("10").key("k").send().await;
    assert_eq!((again.status.as_u16(), again.replayed()), (201, true));
    assert_eq!(service.gateway.charges(), 1);
}
