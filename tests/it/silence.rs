//! The database stops answering: no packet arrives and no connection is closed. All requests are still answered, and work continues
//! as soon as new connections work. The merchants' client waits for 20 s, and a program is killed after 20 s: the tests only check
//! that everything ends in time.

use std::ops::Range;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use payonce::database::{self, Bounded, may_have_committed, pool_options};
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::process::{Server, error_line, merchant, program, run};
use crate::support::proxy::{Break, Proxy};
use crate::support::service::{Answer, Merchant, Service, Setup, client, count};

/// Recovery is off, so that the request itself finds the outcome.
fn setup() -> Setup {
    Setup {
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    }
}

async fn readiness(url: &str) -> u16 {
    let asked = client().get(format!("{url}/readyz")).send().await;
    asked.expect("an answer").status().as_u16()
}

async fn until_readiness_is(url: &str, status: u16) {
    let waited = async {
        while readiness(url).await != status {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waited).await;
    waited.unwrap_or_else(|_| panic!("/readyz is never {status}"));
}

/// Checks that all connections of the pool can be borrowed at once but those of the lanes, which keep up to two fifths of them while
/// commits are slow.
async fn assert_nothing_is_lost(pool: &PgPool) {
    let most = pool.options().get_max_connections();
    let all = join_all((0..most - most * 2 / 5).map(|_| pool.acquire())).await;
    for connection in &all {
        assert!(connection.is_ok(), "of {most} connections, some are lost");
    }
}

/// Told so: a read that waits for its merchant's turn is told that there are too many, and a claim that was sent on a connection
/// which had answered a moment before may have been made.
fn assert_cannot_work(answer: &Answer) {
    let slug = match answer.text("code").as_str() {
        "overloaded" => "overloaded",
        "outcome-unknown" => "outcome-unknown",
        _ => "database-unavailable",
    };
    answer.assert_problem(503, slug, "same-key");
}

/// A request of each kind, at once.
async fn one_of_each(acme: &Merchant, payment: &str, key: &str) -> [Answer; 3] {
    let refund = acme.post(
        &format!("/v1/payments/{payment}/refunds"),
        json!({"amount": "0.01"}),
    );
    let refund = refund.key(key);
    let pay = acme.pay("10").key(key);
    let path = format!("/v1/payments/{payment}");
    let (pay, refund, read) = tokio::join!(pay.send(), refund.send(), acme.get(&path));
    [pay, refund, read]
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn established_connections_fall_silent_and_payments_go_on(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let proxy = Proxy::start(&db);
    let service = Service::start_with(&proxy.options(), setup()).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10").key("first").send().await.text("id");
    for round in 0..3 {
        // Connections for all, lent and given back.
        assert_all_succeed(&acme, &id, round, 0..8).await;
        proxy.silence();
        let answers = join_all((8..16).map(|n| one_of_each_key(&acme, &id, round, n))).await;
        for answer in answers.into_iter().flatten() {
            let status = answer.status.as_u16();
            assert!(matches!(status, 200 | 201 | 503), "{answer:?}");
            if status == 503 {
                assert_cannot_work(&answer);
            }
        }
        until_readiness_is(&service.url, 200).await;
        // Everything is answered by now, and nothing was done twice.
        assert_all_succeed(&acme, &id, round, 8..16).await;
    }
    assert_eq!(service.count("payments").await, 1 + 3 * 16);
    assert_eq!(service.gateway.charges(), 1 + 3 * 16);
    assert_eq!(service.count("refunds").await, 3 * 16);
    assert_eq!(service.count("unsettled_keys").await, 0);
    assert_nothing_is_lost(&service.pool).await;
}

/// How often a request is repeated. On a loaded machine its merchant's turn may come too late for one try.
const MAX_TRIES: usize = 10;

/// Sends one of each under each of the keys, until all of them are answered.
async fn assert_all_succeed(acme: &Merchant, payment: &str, round: u32, keys: Range<u32>) {
    let all = keys.map(async |n| {
        for _ in 0..MAX_TRIES {
            let answers = one_of_each_key(acme, payment, round, n).await;
            match answers.iter().find(|answer| !answer.status.is_success()) {
                None => return,
                Some(answer) => assert_eq!(answer.text("retry"), "same-key", "{answer:?}"),
            }
        }
        panic!("{MAX_TRIES} tries of {round}-{n}");
    });
    join_all(all).await;
}

async fn one_of_each_key(acme: &Merchant, payment: &str, round: u32, n: u32) -> [Answer; 3] {
    one_of_each(acme, payment, &format!("{round}-{n}")).await
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn silence_at_a_commit_is_read_back(_: PgPoolOptions, db: PgConnectOptions) {
    let proxy = Proxy::start(&db);
    let service = Service::start_with(&proxy.options(), setup()).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10.00").key("p").send().await.text("id");
    let path = format!("/v1/payments/{id}/refunds");
    // A payment's key is sent with its claim and with its settle; a refund has a transaction for each.
    for (needle, skip, breaks) in [
        ("claim-silent-request", 0, Break::SilentRequest),
        ("claim-silent-answer", 0, Break::SilentAnswer),
        ("settle-silent-request", 1, Break::SilentRequest),
        ("settle-silent-answer", 1, Break::SilentAnswer),
    ] {
        proxy.break_at(needle, skip, breaks);
        let paid = acme.pay("1").key(needle).send().await;
        assert_eq!(paid.status.as_u16(), 201, "{needle}: {paid:?}");
    }
    assert_eq!(service.gateway.charges(), 5);
    for (key, skip, breaks) in [
        ("claim-answer", 0, Break::SilentAnswer),
        ("settle-request", 1, Break::SilentRequest),
        ("settle-answer", 1, Break::SilentAnswer),
    ] {
        proxy.break_at("COMMIT", skip, breaks);
        let body = json!({"amount": "0.01"});
        let refund = acme.post(&path, body).key(key).send().await;
        assert_eq!(refund.status.as_u16(), 201, "{key}: {refund:?}");
    }
    // It was not committed: the answer says that nothing was done, and the client repeats it.
    proxy.break_at("COMMIT", 0, Break::SilentRequest);
    let refund = acme.post(&path, json!({"amount": "0.01"})).key("again");
    let lost = refund.send().await;
    lost.assert_problem(503, "database-unavailable", "same-key");
    assert_eq!(refund.send().await.status.as_u16(), 201);
    assert_eq!(proxy.broke(), 8);
    assert_eq!(service.count("refunds").await, 4);
    assert_eq!(service.count("unsettled_keys").await, 0);
    assert_nothing_is_lost(&service.pool).await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_database_that_is_silent_for_new_connections_too_is_told_and_heals(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let proxy = Proxy::start(&db);
    let service = Service::start_with(&proxy.options(), setup()).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10").key("first").send().await.text("id");
    proxy.silence_for_good();
    let answers = join_all((0..8).map(|n| one_of_each_key(&acme, &id, 0, n)));
    let (answers, ()) = tokio::join!(answers, until_readiness_is(&service.url, 503));
    for answer in answers.into_iter().flatten() {
        assert_cannot_work(&answer);
    }
    assert_eq!(readiness(&service.url).await, 503);
    proxy.mend();
    until_readiness_is(&service.url, 200).await;
    for answer in one_of_each(&acme, &id, "healed").await {
        assert!(answer.status.is_success(), "{answer:?}");
    }
    assert_eq!(service.gateway.charges(), 2);
    assert_nothing_is_lost(&service.pool).await;
}

#[sqlx::test(migrations = false)]
async fn a_silent_connection_is_closed_and_its_place_is_free_at_once(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let proxy = Proxy::start(&db);
    let options = pool_options().max_connections(1);
    let pool = options.connect_with(proxy.options()).await.expect("a pool");

    // In use, and in a transaction.
    let mut transaction = database::begin(&pool).await.expect("begun");
    proxy.silence();
    let asked = sqlx::query("select 1").execute(&mut *transaction).bounded();
    let error = asked.await.expect_err("nobody answers");
    assert!(may_have_committed(&error), "{error}");
    drop(transaction);
    assert_eq!(pool.size(), 0, "nobody waits for a rollback");

    // At COMMIT.
    let transaction = database::begin(&pool).await.expect("a new connection");
    proxy.silence();
    let error = transaction.commit().await.expect_err("nobody answers");
    assert!(may_have_committed(&error), "{error}");
    assert_eq!(pool.size(), 0);

    // While it is given back: for a second at most.
    let lease = database::acquire(&pool).await.expect("a new connection");
    proxy.silence();
    drop(lease);
    // While it is idle.
    let lease = database::acquire(&pool).await.expect("a new connection");
    drop(lease);
    while pool.num_idle() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.silence();
    let mut lease = database::acquire(&pool).await.expect("a new connection");
    let asked = sqlx::query("select 1").execute(&mut *lease).bounded();
    asked.await.expect("it works");
}

/// A program, its arguments, and the query whose answer never comes.
type Run = (&'static str, &'static [&'static str], &'static str);

/// They wait for the same lock, so they run one after the other.
const MIGRATING: [Run; 4] = [
    ("payonce", &["migrate"], "pg_advisory_lock"),
    ("payonce", &["migrate"], "fsync"),
    ("payonce", &["migrate"], "server_encoding"),
    ("payonce", &["serve"], "pg_advisory_lock"),
];

const OTHERS: [Run; 8] = [
    ("payonce", &["merchants", "list"], "from merchants"),
    ("payonce", &["merchants", "create", "m"], "into merchants"),
    ("payonce", &["api-keys", "list", "m"], "from merchants"),
    (
        "payonce",
        &["idempotency-keys", "list"],
        "from idempotency_keys",
    ),
    ("payonce", &["recover", "--once"], "unsettled_keys"),
    ("payonce", &["doctor"], "pg_settings"),
    ("payonce", &["doctor"], "datconnlimit"),
    ("payonce-cleanup", &[], "lock_timeout = '250ms'"),
];

fn assert_ends_in_silence(proxy: &Proxy, (name, arguments, needle): Run) {
    let before = proxy.broke();
    proxy.break_at(needle, 0, Break::SilentAnswer);
    let output = run(program(name, &proxy.options())
        .args(arguments)
        .env("PAYONCE_LISTEN", "127.0.0.1:0")
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
    let context = format!("{name} {arguments:?} at {needle}");
    assert_eq!(proxy.broke(), before + 1, "{context}: {output:?}");
    assert_eq!(output.status.code(), Some(1), "{context}: {output:?}");
}

fn assert_end_without_a_first_answer(db: &PgConnectOptions) {
    let proxy = Proxy::start(db);
    proxy.silence_for_good();
    for (name, arguments) in [
        ("payonce", &["migrate"][..]),
        ("payonce", &["recover", "--once"]),
        ("payonce", &["merchants", "list"]),
        ("payonce", &["serve"]),
        ("payonce-cleanup", &[]),
    ] {
        let output = run(program(name, &proxy.options())
            .args(arguments)
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let line = error_line(&output);
        assert!(line.contains("cannot reach the database"), "{line}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn programs_end_when_the_database_falls_silent(pool: PgPoolOptions, db: PgConnectOptions) {
    let pool = pool.connect_with(db.clone()).await.expect("a pool");
    // A few at once, because they spend most of their time waiting.
    std::thread::scope(|scope| {
        for runs in std::iter::once(&MIGRATING[..]).chain(OTHERS.chunks(4)) {
            let db = &db;
            scope.spawn(move || {
                let proxy = Proxy::start(db);
                for run in runs {
                    assert_ends_in_silence(&proxy, *run);
                }
            });
        }
        scope.spawn(|| assert_end_without_a_first_answer(&db));
    });
    assert_eq!(
        count(&pool, "_sqlx_migrations").await,
        i64::try_from(payonce::MIGRATOR.iter().count()).expect("few")
    );
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_service_stops_while_its_database_is_silent(_: PgPoolOptions, db: PgConnectOptions) {
    let proxy = Proxy::start(&db);
    let settings = [
        ("PAYONCE_RECOVERY_INTERVAL", "1h"),
        ("PAYONCE_CONSOLE_TOKEN", "a token of the tests"),
    ];
    let mut server = Server::start(&proxy.options(), &settings);
    let acme = merchant(&db, &server.url, "acme");
    assert_eq!(acme.pay("1").key("a").send().await.status.as_u16(), 201);
    proxy.silence_for_good();
    let waiting = acme.pay("1").key("b");
    let (answer, ()) = tokio::join!(waiting.send(), async {
        until_readiness_is(&server.url, 503).await;
        server.signal(Signal::SIGTERM);
    });
    answer.assert_problem(503, "database-unavailable", "same-key");
    assert!(server.ended().await.success(), "{}", server.log());
    assert!(server.log().contains("stopped"), "{}", server.log());
}

/// The files of `folder`, without their tests.
fn sources(folder: &std::path::Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            // Files that contain only tests.
            && path.file_name().is_some_and(|name| name != "tests.rs" && name != "fenced_writes.rs")
        {
            let text = std::fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            found.push((path.display().to_string(), code.to_owned()));
        }
    }
}

#[test]
fn nothing_runs_on_the_pool_itself() {
    let mut found = Vec::new();
    for folder in ["src", "engine/src"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        sources(&folder, &mut found);
    }
    assert!(found.len() > 100, "these are not the sources");
    for (path, code) in found {
        // sqlx would lend a connection without a deadline, and wait for it when it is given back.
        for executor in ["pool", "&pool", "&self.pool", "self.pool()", "&*pool"] {
            for method in ["fetch_one", "fetch_all", "fetch_optional", "execute"] {
                let call = format!(".{method}({executor})");
                assert!(
                    !code.contains(&call),
                    "{path}: {call}; use database::acquire"
                );
            }
        }
        if !path.ends_with("database/pool.rs") {
            for call in [
                "pool.acquire()",
                "pool.begin()",
                "pool().acquire()",
                "pool().begin()",
            ] {
                assert!(
                    !code.contains(call),
                    "{path}: {call}; use database::acquire"
                );
            }
        }
    }
}
