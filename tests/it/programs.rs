//! The programs as users run them: their output, their exit status, and the state that they leave.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use payonce::database::pool_options;
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::cluster::{Cluster, postgres_program};
use crate::support::gateway::{Endpoint, Fault, TestGateway};
use crate::support::process::{
    Server, error_line, json as stdout, merchant, plain_url, program, run,
};
use crate::support::rows::{end_leases, filling};
use crate::support::service::{Merchant, Service, count, payment, until_unsettled};

/// An upper bound, which is not reached if all is well.
const PATIENCE: Duration = Duration::from_secs(60);

async fn pool(db: &PgConnectOptions) -> PgPool {
    pool_options()
        .max_connections(3)
        .connect_with(db.clone())
        .await
        .expect("a pool")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_killed_server_started_again_answers_from_the_database(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let mut server = Server::start(&db, &[]);
    let acme = merchant(&db, &server.url, "acme");
    let first = acme.pay("10").key("k").send().await;
    server.kill();
    let server = Server::start(&db, &[]);
    let acme = Merchant {
        url: server.url.clone(),
        ..acme
    };
    let again = acme.pay("10").key("k").send().await;
    assert!(again.replayed());
    assert_eq!(again.bytes, first.bytes);
}

/// A server is killed in the middle of acme's payment of 10 under `k`, whose client gets no answer.
async fn leave_behind(db: &PgConnectOptions, pool: &PgPool, lock_timeout: &str) -> Merchant {
    let settings = [
        ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "30s"),
        ("PAYONCE_GATEWAY_TIMEOUT", "60s"),
        ("PAYONCE_LOCK_TIMEOUT", lock_timeout),
    ];
    let mut dying = Server::start(db, &settings);
    let acme = merchant(db, &dying.url, "acme");
    let lost = tokio::spawn({
        let request = acme.pay("10").key("k");
        async move { request.try_send().await.is_err() }
    });
    until_unsettled(pool, 1).await;
    dying.kill();
    assert!(lost.await.expect("no panic"), "its client got no answer");
    acme
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_a_killed_server_left_behind_is_resolved_without_its_client(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pool = pool(&db).await;
    let acme = leave_behind(&db, &pool, "1s").await;
    let killed = Instant::now();
    let server = Server::start(
        &db,
        &[
            ("PAYONCE_LOCK_TIMEOUT", "1s"),
            ("PAYONCE_RECOVERY_INTERVAL", "100ms"),
        ],
    );
    while count(&pool, "unsettled_keys").await == 1 {
        assert!(
            killed.elapsed() < PATIENCE,
            "nothing is recovered: {}",
            server.log()
        );
        crate::support::pause().await;
    }
    let acme = Merchant {
        url: server.url.clone(),
        ..acme
    };
    let answer = acme.pay("10").key("k").send().await;
    assert_eq!((answer.status.as_u16(), answer.replayed()), (201, true));
    let record = acme
        .get("/v1/idempotency-keys/create_payment/k")
        .await
        .json();
    assert_eq!(
        (&record["attempts"], &record["state"]),
        (&json!(2), &json!("COMPLETED"))
    );
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn recover_by_hand_resolves_what_was_left(_: PgPoolOptions, db: PgConnectOptions) {
    let pool = pool(&db).await;
    leave_behind(&db, &pool, "5s").await;
    let recover = || {
        run(program("payonce", &db)
            .args(["recover", "--once"])
            .env("PAYONCE_FINGERPRINT_SECRET", "s"))
    };
    assert_eq!(stdout(&recover())["found"], 0, "its lease holds");
    end_leases(&pool).await;
    let stuck =
        run(program("payonce", &db).args(["idempotency-keys", "list", "--stuck", "--json"]));
    assert_eq!(stdout(&stuck).as_array().map(Vec::len), Some(1));
    assert_eq!(stdout(&recover())["resolved"], 1);
    let shown = run(program("payonce", &db).args([
        "idempotency-keys",
        "show",
        "acme",
        "create_payment",
        "k",
        "--json",
    ]));
    assert_eq!(stdout(&shown)["state"], "COMPLETED");
    assert_eq!(count(&pool, "unsettled_keys").await, 0);
    pool.close().await;
}

/// Without `--once` it continues until nothing is left, or until it can do nothing about the rest.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn recover_ends(_: PgPoolOptions, db: PgConnectOptions) {
    let pool = pool(&db).await;
    leave_behind(&db, &pool, "5s").await;
    end_leases(&pool).await;
    sqlx::query("update payments set gateway_type = 'STRIPE'")
        .execute(&pool)
        .await
        .expect("a payment of another gateway");
    let recover = || {
        run(program("payonce", &db)
            .arg("recover")
            .env("PAYONCE_FINGERPRINT_SECRET", "s"))
    };
    let left = recover();
    assert_eq!(left.status.code(), Some(1));
    assert_eq!(stdout(&left)["misconfigured"], 1);
    let told = String::from_utf8_lossy(&left.stderr).into_owned();
    assert!(told.contains("PAYONCE_GATEWAY"), "{told}");
    let attempt: i32 = sqlx::query_scalar("select attempt from idempotency_keys")
        .fetch_one(&pool)
        .await
        .expect("the key");
    assert_eq!(attempt, 1, "it was left alone");
    sqlx::query("update payments set gateway_type = 'SIMULATED'")
        .execute(&pool)
        .await
        .expect("a payment of this gateway");
    let done = recover();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(stdout(&done)["resolved"], 1);
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_stopping_server_ends_the_requests_under_way(_: PgPoolOptions, db: PgConnectOptions) {
    let pool = pool(&db).await;
    let gateway = TestGateway::start();
    let mut server = Server::start_on(&gateway.url(), &db, &[]);
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    let acme = merchant(&db, &server.url, "acme");
    let request = acme.pay("10").key("k");
    let under_way = tokio::spawn(async move { request.send().await });
    gateway.until_executed(Endpoint::Charge, 1).await;
    server.signal(Signal::SIGTERM);
    server
        .until_logged("stopping: finishing the requests in flight")
        .await;
    gateway.release();
    assert_eq!(under_way.await.expect("no panic").status, 201);
    assert_eq!(server.ended().await.code(), Some(0));
    // An idle one ends at once, though a client keeps its connection open.
    let mut server = Server::start(&db, &[]);
    let acme = Merchant {
        url: server.url.clone(),
        ..acme
    };
    assert_eq!(acme.get("/healthz").await.status, 200);
    let told = Instant::now();
    server.signal(Signal::SIGINT);
    assert_eq!(server.ended().await.code(), Some(0));
    // Longer than a stop that waited for its clients.
    assert!(told.elapsed() < Duration::from_secs(15));
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn no_card_or_key_is_written_anywhere(_: PgPoolOptions, db: PgConnectOptions) {
    let server = Server::start(
        &db,
        &[
            ("PAYONCE_LOG", "trace"),
            ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "0s"),
        ],
    );
    let acme = merchant(&db, &server.url, "acme");
    let body = payment("10").to_string().replace("737", "7391");
    for (key, card) in [
        ("good", "4242424242424242"),
        ("bad", "4000000000009995"),
        ("wrong", "4242424242424241"),
    ] {
        acme.pay("10")
            .key(key)
            .body(body.clone())
            .card(card)
            .send()
            .await;
    }
    acme.pay("11")
        .key("good")
        .body(body.replace("\"10\"", "\"11\""))
        .send()
        .await;
    let dump = run(Command::new(postgres_program("pg_dump")).arg(plain_url(&db)));
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(dump.contains("pay_"), "the payments are in the dump");
    let log = server.log();
    assert!(log.contains("served"), "the requests are in the log");
    let hex = |text: &str| {
        text.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    for secret in [
        "4242424242424242",
        "4000000000009995",
        "4242424242424241",
        "7391\"",
        &acme.api_key,
    ] {
        for (place, text) in [("dump", &dump), ("log", &log)] {
            assert!(
                !text.contains(secret) && !text.contains(&hex(secret)),
                "a secret is in the {place}"
            );
        }
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_revoked_key_stops_for_replays_too(_: PgPoolOptions, db: PgConnectOptions) {
    let server = Server::start(&db, &[("PAYONCE_SIMULATED_GATEWAY_LATENCY", "0s")]);
    let acme = merchant(&db, &server.url, "acme");
    assert_eq!(acme.pay("10").key("k").send().await.status, 201);
    let listed = stdout(&run(
        program("payonce", &db).args(["api-keys", "list", "acme", "--json"])
    ));
    let id = listed[0]["apiKeyId"].as_str().expect("an id").to_owned();
    assert!(
        run(program("payonce", &db).args(["api-keys", "revoke", &id]))
            .status
            .success()
    );
    let revoked = Instant::now();
    while acme.pay("10").key("k").send().await.status != 401 {
        assert!(revoked.elapsed() < PATIENCE, "it is still taken");
        crate::support::pause().await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn bad_usage_is_said_in_one_line_that_names_the_setting(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let serve = |settings: &[(&str, &str)]| {
        run(program("payonce", &db)
            .arg("serve")
            .env("PAYONCE_FINGERPRINT_SECRET", "s")
            .envs(settings.iter().copied()))
    };
    for (variable, value) in [
        ("PAYONCE_LISTEN", "nowhere"),
        ("PAYONCE_KEY_TTL", "soon"),
        ("PAYONCE_LOCK_TIMEOUT", "0s"),
        ("PAYONCE_RETRY_INTERVAL", "x"),
        ("PAYONCE_MAX_RETRIES", "-1"),
        ("PAYONCE_GROUP_SIZE", "257"),
        ("PAYONCE_GATEWAY", "paypal"),
        ("PAYONCE_GATEWAY_TIMEOUT", "x"),
        ("PAYONCE_DATABASE_MAX_CONNECTIONS", "many"),
        ("PAYONCE_LOG_FORMAT", "xml"),
        ("PAYONCE_FINGERPRINT_SECRET", ""),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "mysql://u:hunter2@h/d"),
    ] {
        let output = serve(&[(variable, value)]);
        assert_eq!(output.status.code(), Some(2), "{variable}={value}");
        let line = error_line(&output);
        assert!(
            line.contains(variable) && !line.contains("hunter2"),
            "{line}"
        );
    }
    let stripe = error_line(&serve(&[("PAYONCE_GATEWAY", "stripe")]));
    assert!(stripe.contains("PAYONCE_STRIPE_SECRET_KEY"), "{stripe}");
    let unreachable = run(program("payonce", &db).args([
        "migrate",
        "--database-url",
        "postgres://u:hunter2@127.0.0.1:1/d",
    ]));
    assert_eq!(unreachable.status.code(), Some(1));
    let line = error_line(&unreachable);
    assert!(
        line.contains("127.0.0.1:1") && !line.contains("hunter2"),
        "{line}"
    );
    assert_eq!(
        run(program("payonce", &db).arg("--help")).status.code(),
        Some(0)
    );
    let twice = ["merchants", "create", "acme"];
    assert!(run(program("payonce", &db).args(twice)).status.success());
    assert_eq!(
        run(program("payonce", &db).args(twice)).status.code(),
        Some(1)
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_database_that_may_lose_what_it_confirmed_is_refused(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pool = pool(&db).await;
    sqlx::raw_sql(
        "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$",
    )
    .execute(&pool)
    .await
    .expect("the database's setting");
    pool.close().await;
    let refused = run(program("payonce", &db)
        .arg("serve")
        .env("PAYONCE_FINGERPRINT_SECRET", "s"));
    assert_eq!(refused.status.code(), Some(2));
    let line = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        line.contains("synchronous_commit") && line.contains("--allow-unsafe-database"),
        "{line}"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_clean_up_deletes_what_is_over_and_nothing_else(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    for i in 0..7 {
        acme.pay("1").key(&format!("k{i}")).send().await;
    }
    let pool = &service.pool;
    let execute =
        async |sql: &'static str| sqlx::query(sql).execute(pool).await.expect("a statement");
    execute("update idempotency_keys set expires_at = now() - interval '1 hour' where key < 'k5'")
        .await;
    // One of them is unfinished work, which never expires; another is held by somebody.
    execute("update idempotency_keys set state = 'PROCESSING', lease_expires_at = now() + interval '1 hour', completed_at = null, response_status = null, response_headers = null, response_body = null where key = 'k0'").await;
    let mut holding = pool.begin().await.expect("a transaction");
    sqlx::query("select 1 from idempotency_keys where key = 'k1' for update")
        .execute(&mut *holding)
        .await
        .expect("a lock");
    let cleanup = |arguments: &[&str]| run(program("payonce-cleanup", &db).args(arguments));
    let dry = stdout(&cleanup(&["--dry-run"]));
    assert_eq!((&dry["deleted"], &dry["remaining"]), (&json!(0), &json!(4)));
    assert_eq!(dry.get("keepingUp"), None, "it tried nothing");
    let no_time = cleanup(&["--max-duration", "1ns"]);
    assert_eq!(stdout(&no_time)["keepingUp"], false);
    assert!(error_line(&no_time).contains("--max-duration"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("payonce.prom");
    let output = cleanup(&[
        "--batch-size",
        "2",
        "--metrics-file",
        &file.to_string_lossy(),
    ]);
    assert_eq!(output.status.code(), Some(0));
    let report = stdout(&output);
    assert_eq!(
        (&report["deleted"], &report["remaining"]),
        (&json!(3), &json!(1))
    );
    assert!(report["batches"].as_u64() >= Some(2) && report["durationMs"].is_u64());
    assert_eq!(report["keepingUp"], true, "what is held is the next run's");
    assert!(metrics_of(&file).contains("payonce_cleanup_deleted 3"));
    assert!(metrics_of(&file).contains("payonce_cleanup_keeping_up 1"));
    holding.rollback().await.expect("an end");
    assert_eq!(stdout(&cleanup(&[]))["deleted"], 1);
    let left: Vec<String> = sqlx::query_scalar("select key from idempotency_keys order by key")
        .fetch_all(pool)
        .await
        .expect("keys");
    assert_eq!(left, ["k0", "k5", "k6"]);
    assert_eq!(count(pool, "payments").await, 7);
    // Another clean-up is running, so the second ends.
    let mut first = pool.acquire().await.expect("a connection");
    sqlx::query("select pg_advisory_lock(hashtext('payonce-cleanup'))")
        .execute(&mut *first)
        .await
        .expect("a lock");
    let second = cleanup(&[]);
    assert_eq!(second.status.code(), Some(0));
    assert!(error_line(&second).contains("another"));
    assert_eq!(stdout(&second)["deleted"], 0);
    first.close().await.expect("an end");
}

fn metrics_of(file: &Path) -> String {
    std::fs::read_to_string(file).expect("the metrics")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn two_clean_ups_beside_traffic_delete_each_key_once(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let mut tx = filling(&service.pool).await;
    sqlx::query(
        "insert into idempotency_keys select 'old', 'create_payment', 'k' || i, sha256('x'), 1, '', 'COMPLETED', 1, gen_random_uuid(), null, null, 200, '[]', '', now() - interval '2 days', now(), now() - interval '1 day' from generate_series(1, 4000) i",
    )
    .execute(&mut *tx)
    .await
    .expect("old keys");
    tx.commit().await.expect("filled");
    let spawn = || {
        program("payonce-cleanup", &db)
            .args(["--batch-size", "50"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("a clean-up")
    };
    let (one, two) = (spawn(), spawn());
    for i in 0..50 {
        assert_eq!(acme.pay("1").key(&format!("k{i}")).send().await.status, 201);
    }
    let deleted: u64 = [one, two]
        .into_iter()
        .map(|child| {
            stdout(&child.wait_with_output().expect("its end"))["deleted"]
                .as_u64()
                .expect("a number")
        })
        .sum();
    assert_eq!(deleted, 4000);
    assert_eq!(service.count("idempotency_keys").await, 50);
}

#[tokio::test]
async fn a_database_that_goes_and_comes_back() {
    let cluster = Cluster::start();
    let server = Server::start(
        &cluster.options(),
        &[("PAYONCE_SIMULATED_GATEWAY_LATENCY", "0s")],
    );
    let acme = merchant(&cluster.options(), &server.url, "acme");
    let paid = acme.pay("10").key("before").send().await;
    assert_eq!(paid.status, 201);
    cluster.down();
    assert_eq!(acme.get("/readyz").await.status, 503);
    assert_eq!(acme.get("/healthz").await.status, 200);
    let refused = acme.pay("10").key("during").send().await;
    refused.assert_problem(503, "database-unavailable", "same-key");
    cluster.up();
    let again = acme.pay("10").key("during").send().await;
    assert_eq!(
        (again.status.as_u16(), again.replayed()),
        (201, false),
        "without a restart, and at once"
    );
    assert_eq!(acme.get("/readyz").await.status, 200);
    assert_eq!(acme.pay("10").key("before").send().await.bytes, paid.bytes);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn every_key_of_the_schema_begins_with_the_merchant(_: PgPoolOptions, db: PgConnectOptions) {
    let pool = pool(&db).await;
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select c.conname::text, a.attname::text from pg_constraint c \
         join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1] \
         where c.contype in ('p', 'u', 'f') and c.connamespace = 'public'::regnamespace \
           and c.conrelid <> '_sqlx_migrations'::regclass",
    )
    .fetch_all(&pool)
    .await
    .expect("the catalogue");
    assert!(rows.len() >= 9);
    for (constraint, first) in rows {
        assert_eq!(first, "merchant_id", "{constraint}");
    }
    pool.close().await;
}
