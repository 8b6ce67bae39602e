//! `payonce doctor`: its findings about databases, roles, gateways and settings with problems.

use std::collections::BTreeMap;
use std::process::Output;
use std::time::Duration;

use payonce::database;
use payonce::doctor::NEEDED_PRIVILEGES;
use payonce::idempotency::{Engine, FingerprintSecrets, IdempotencyConfig};
use payonce::merchants::Merchants;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::cluster::Cluster;
use crate::support::gateway::{Endpoint, Fault, SECRET_KEY, TestGateway};
use crate::support::process::{json as stdout, program, run};
use crate::support::rows::execute;
use crate::support::scripted::Turn;
use crate::support::service::{Merchant, Service, Setup, client, count};

/// The doctor's report on each check: its result, and the finding with its advice.
struct Said {
    status: Option<i32>,
    findings: BTreeMap<String, (String, String)>,
}

impl Said {
    fn of(output: &Output) -> Self {
        let report = stdout(output);
        let findings = report["findings"].as_array().expect("findings").iter();
        let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or("").to_owned();
        let findings = findings.map(|finding| {
            let said = format!("{} → {}", text(finding, "found"), text(finding, "advice"));
            (text(finding, "name"), (text(finding, "result"), said))
        });
        Self {
            status: output.status.code(),
            findings: findings.collect(),
        }
    }

    fn with(&self, result: &str) -> Vec<&str> {
        let those = self.findings.iter().filter(|(_, (is, _))| is == result);
        those.map(|(name, _)| name.as_str()).collect()
    }

    #[track_caller]
    fn assert(&self, check: &str, result: &str, said: &str) {
        let (is, text) = &self.findings[check];
        assert_eq!(is, result, "{check}: {text}");
        assert!(text.contains(said), "{check}: {text}");
    }
}

fn output(db: &PgConnectOptions, arguments: &[&str]) -> Output {
    run(program("payonce", db)
        .arg("doctor")
        .args(arguments)
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"))
}

fn doctor(db: &PgConnectOptions, arguments: &[&str]) -> Said {
    Said::of(&output(db, &[&["--json"], arguments].concat()))
}

/// The same without a secret: not set, or empty, as with Docker Compose.
fn doctor_without_a_secret(db: &PgConnectOptions) -> [Said; 2] {
    let said = |command: &mut std::process::Command| Said::of(&run(command));
    let name = "PAYONCE_FINGERPRINT_SECRET";
    [
        said(
            program("payonce", db)
                .args(["doctor", "--json"])
                .env_remove(name),
        ),
        said(
            program("payonce", db)
                .args(["doctor", "--json"])
                .env(name, ""),
        ),
    ]
}

/// Nothing listens there.
fn nowhere() -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(1)
        .username("u")
        .password("hunter2")
        .database("d")
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_service_that_is_well_has_no_problem_and_each_check_is_named(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let said = output(&db, &["--json"]);
    let report = stdout(&said);
    let said = Said::of(&said);
    assert_eq!(said.with("problem"), [""; 0], "{report}");
    assert_eq!(said.status, Some(0));
    assert_eq!(
        said.findings.keys().map(String::as_str).collect::<Vec<_>>(),
        [
            "autovacuum",
            "autovacuum-tables",
            "cell",
            "clean-up",
            "clock",
            "connections",
            "database",
            "duplicates-wait",
            "encoding",
            "example-secrets",
            "fingerprint-secret",
            "fsync",
            "full-page-writes",
            "gateway",
            "gateway-timeout",
            "key-ttl",
            "lock-timeout",
            "moves",
            "pool",
            "primary",
            "privileges",
            "recovery-interval",
            "schema",
            "session-settings",
            "signing-secret",
            "stuck-keys",
            "synchronous-commit",
            "time-zone",
            "unsafe-database",
            "version",
        ]
    );
    let counted = |result| json!(said.with(result).len());
    assert_eq!(report["problems"], counted("problem"));
    assert_eq!(report["warnings"], counted("warning"));
    assert_eq!(report["ok"], counted("ok"));
    said.assert("gateway", "warning", "no money moves");
    said.assert("clock", "ok", " ms");
    for finding in report["findings"].as_array().expect("findings") {
        let needs_none = finding["result"] == "ok";
        assert_eq!(finding["advice"].is_null(), needs_none, "{finding}");
    }
}

#[test]
fn a_server_that_is_set_up_badly_is_told_setting_by_setting() {
    let cluster = Cluster::start_with(
        "-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c autovacuum=off \
         -c max_connections=15 -c log_timezone=Europe/Berlin",
    );
    let said = doctor(&cluster.options(), &[]);
    assert_eq!(said.status, Some(1));
    let problems = [
        "autovacuum",
        "connections",
        "fsync",
        "full-page-writes",
        "synchronous-commit",
    ];
    assert_eq!(said.with("problem"), problems);
    for name in &problems[2..] {
        said.assert(name, "problem", "command line");
    }
    said.assert("autovacuum", "problem", "alter system set autovacuum = on");
    said.assert("connections", "problem", "allows 12");
    said.assert("time-zone", "warning", "Europe/Berlin");
    said.assert("schema", "warning", "payonce serve applies them");
    said.assert("stuck-keys", "ok", "no keys yet");
    said.assert("signing-secret", "ok", "no secret yet");

    let page = output(&cluster.options(), &[]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    let lines: Vec<&str> = page.lines().collect();
    let fsync = lines
        .iter()
        .position(|line| line.starts_with("problem  fsync"));
    let advice = lines[fsync.expect("a row") + 1].trim_start();
    assert!(advice.starts_with("→ "), "{page}");
    assert!(page.contains("\nproblems: 5, "), "{page}");

    let allowed = doctor(
        &cluster.options(),
        &["--allow-unsafe-database", "--no-migrate"],
    );
    for name in &problems[2..] {
        allowed.assert(name, "warning", "may lose");
    }
    allowed.assert("unsafe-database", "warning", "allowed");
    allowed.assert("schema", "problem", "payonce migrate");

    cluster.down();
    cluster.make_standby();
    cluster.up();
    let said = doctor(&cluster.options(), &[]);
    said.assert("primary", "problem", "standby");
    assert_eq!(said.with("problem"), ["primary"]);
}

/// A service with these secrets has started on the database.
async fn note_secrets(pool: &PgPool, secrets: FingerprintSecrets) {
    let database = (*pool.connect_options()).clone();
    let engine = Engine::connect(database, 1, IdempotencyConfig::default(), &secrets)
        .await
        .expect("a fit pool");
    engine.register_secrets().await.expect("noted");
    engine.finish().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_secret_that_did_not_sign_the_database_is_told(
    pool: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pool = pool.connect_with(db.clone()).await.expect("a pool");
    let ours = || FingerprintSecrets::new("a secret of the tests");
    doctor(&db, &[]).assert("signing-secret", "ok", "no secret yet");
    assert_eq!(
        count(&pool, "fingerprint_secrets").await,
        0,
        "it only reads"
    );
    note_secrets(&pool, ours()).await;
    doctor(&db, &[]).assert("signing-secret", "ok", "signed by ours");

    const OTHER: &str = "--fingerprint-secret=another secret of the tests";
    let said = doctor(&db, &[OTHER]);
    said.assert(
        "signing-secret",
        "problem",
        "--allow-other-fingerprint-secret",
    );
    assert_eq!(said.with("problem"), ["signing-secret"]);
    assert_eq!(said.status, Some(1));
    let allowed = doctor(&db, &[OTHER, "--allow-other-fingerprint-secret"]);
    allowed.assert("signing-secret", "warning", "503");
    let rotating = doctor(&db, &[&format!("{OTHER},a secret of the tests")]);
    rotating.assert("signing-secret", "ok", "signed by ours");
    assert_eq!(
        count(&pool, "fingerprint_secrets").await,
        1,
        "it only reads"
    );

    let other = FingerprintSecrets::new("another secret of the tests");
    note_secrets(&pool, other.accepting("a secret of the tests")).await;
    doctor(&db, &[OTHER]).assert("signing-secret", "warning", "keep the older secret");
    execute(
        &pool,
        "update fingerprint_secrets set retired_at = retired_at - interval '25 h'",
    )
    .await;
    doctor(&db, &[OTHER]).assert("signing-secret", "ok", "signed by ours");
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn without_a_secret_it_says_so_and_checks_the_rest(
    pool: PgPoolOptions,
    db: PgConnectOptions,
) {
    let pool = pool.connect_with(db.clone()).await.expect("a pool");
    let all: Vec<String> = doctor(&db, &[]).findings.into_keys().collect();
    for said in doctor_without_a_secret(&db) {
        assert_eq!(said.status, Some(1));
        assert_eq!(said.with("problem"), ["fingerprint-secret"]);
        said.assert("fingerprint-secret", "problem", "is not set");
        said.assert("signing-secret", "ok", "no secret yet");
        assert_eq!(said.findings.into_keys().collect::<Vec<_>>(), all);
    }
    note_secrets(&pool, FingerprintSecrets::new("a secret of the tests")).await;
    for said in doctor_without_a_secret(&db) {
        said.assert("signing-secret", "warning", "none is set to compare");
    }
    pool.close().await;
}

/// A role without any privilege, and a pool of the database's owner.
async fn database_with_a_role(cluster: &Cluster) -> (PgPool, PgConnectOptions) {
    let owner = PgPool::connect_with(cluster.options())
        .await
        .expect("connected");
    database::migrate(&owner).await.expect("migrated");
    execute(&owner, "create role service login").await;
    // As it is since PostgreSQL 15.
    execute(&owner, "revoke create on schema public from public").await;
    (owner, cluster.options().username("service"))
}

#[tokio::test]
async fn each_privilege_that_the_role_lacks_is_named_and_all_of_them_are_enough() {
    let cluster = Cluster::start();
    let (owner, service) = database_with_a_role(&cluster).await;
    let said = doctor(&service, &[]);
    for (table, privileges) in NEEDED_PRIVILEGES {
        let grant = format!("grant {} on {table} to service", privileges.join(", "));
        said.assert("privileges", "problem", &grant);
    }
    said.assert("privileges", "problem", "--no-migrate");
    // Unknown results are reported, too.
    said.assert("schema", "problem", "permission denied");
    said.assert("stuck-keys", "problem", "permission denied");
    said.assert("signing-secret", "problem", "permission denied");

    for (table, privileges) in NEEDED_PRIVILEGES {
        let grant = format!("grant {} on {table} to service", privileges.join(", "));
        execute(&owner, &grant).await;
    }
    let said = doctor(&service, &["--no-migrate"]);
    assert_eq!(said.with("problem"), [""; 0]);
    let migrating = doctor(&service, &[]);
    assert_eq!(
        migrating.with("problem"),
        [""; 0],
        "it may serve with --no-migrate"
    );
    migrating.assert("privileges", "warning", "grant create on schema public");
    let renumber = |from: i64, to: i64| {
        format!("update _sqlx_migrations set version = {to} where version = {from}")
    };
    execute(&owner, &renumber(7, 70)).await;
    doctor(&service, &[]).assert("schema", "problem", "run payonce migrate");
    execute(&owner, &renumber(70, 7)).await;
    work_through_all_statements(&owner, &service).await;
    // A console needs its tables, too.
    let with_a_console = ["--no-migrate", "--console-token", "a token of the tests"];
    doctor(&service, &with_a_console).assert(
        "privileges",
        "problem",
        "grant select, insert on operator_actions to service",
    );

    execute(&owner, "revoke update, delete on payments from service").await;
    let said = doctor(&service, &["--no-migrate"]);
    said.assert(
        "privileges",
        "problem",
        "grant update, delete on payments to service",
    );
    execute(&owner, "revoke usage on schema public from public").await;
    doctor(&service, &["--no-migrate"]).assert("privileges", "problem", "grant usage on schema");
}

/// A service with this role can do everything.
async fn work_through_all_statements(owner: &PgPool, role: &PgConnectOptions) {
    let setup = Setup {
        recovery_interval: Duration::from_millis(50),
        ..Setup::default()
    };
    let service = Service::start_with(role, setup).await;
    let made = Merchants::new(owner.clone()).create("acme", "acme").await;
    let acme = Merchant {
        url: service.url.clone(),
        api_key: made.expect("made").api_key.expose_secret().to_owned(),
        client: client(),
    };
    let status = |answer: &crate::support::service::Answer| answer.status.as_u16();
    let paid = acme.pay("10").key("paid").send().await;
    assert_eq!(status(&paid), 201);
    let of = |id: &str, what: &str| format!("/v1/payments/{id}/{what}");
    let refund = acme.post(&of(&paid.text("id"), "refunds"), json!({"amount": "1"}));
    assert_eq!(status(&refund.clone().key("refund").send().await), 201);
    service.gateway.then(&[Turn::Nothing]);
    assert_eq!(status(&refund.key("released").send().await), 503);
    service.gateway.then(&[Turn::Nothing]);
    assert_eq!(status(&acme.pay("10").key("released").send().await), 503);
    for what in ["capture", "cancel"] {
        let mut body: Value = crate::support::service::payment("10");
        body["captureMethod"] = json!("MANUAL");
        let held = acme.post("/v1/payments", body).key(what).send().await;
        let request = acme.post(&of(&held.text("id"), what), json!({}));
        assert_eq!(status(&request.key(what).send().await), 200, "{what}");
    }
    for path in [
        "/v1/payments".to_owned(),
        of(&paid.text("id"), "refunds"),
        "/v1/idempotency-keys/create_payment/paid".to_owned(),
        "/readyz".to_owned(),
    ] {
        assert_eq!(status(&acme.get(&path).await), 200, "{path}");
    }
    // Recovery takes it over and resolves it.
    service.gateway.then(&[Turn::Unknown]);
    assert_eq!(status(&acme.pay("10").key("unknown").send().await), 202);
    execute(
        owner,
        "update idempotency_keys set lease_expires_at = now() - interval '1 s' where key = 'unknown'",
    )
    .await;
    service.until_unsettled(0).await;
}

#[tokio::test]
async fn a_role_or_a_table_that_was_changed_and_work_left_lying_are_told() {
    let cluster = Cluster::start();
    let (owner, service) = database_with_a_role(&cluster).await;
    execute(&owner, "grant postgres to service").await;
    for (change, check, result, said, back) in [
        (
            "alter role service set synchronous_commit = off",
            "synchronous-commit",
            "problem",
            "alter role",
            "alter role service reset synchronous_commit",
        ),
        (
            "alter role service connection limit 19",
            "connections",
            "problem",
            "the role allows 19",
            "alter role service connection limit -1",
        ),
        (
            "alter role service set default_transaction_read_only = on",
            "primary",
            "problem",
            "default_transaction_read_only",
            "alter role service reset default_transaction_read_only",
        ),
        (
            "alter table payments set (autovacuum_enabled = false)",
            "autovacuum-tables",
            "problem",
            "alter table payments reset (autovacuum_enabled)",
            "alter table payments reset (autovacuum_enabled)",
        ),
        (
            "update _sqlx_migrations set success = false where version = 2",
            "schema",
            "problem",
            "migration 2 ended midway",
            "update _sqlx_migrations set success = true",
        ),
        (
            KEYS_LEFT_LYING,
            "stuck-keys",
            "warning",
            "1 in PROCESSING without an owner, the oldest for 3h",
            "update unsettled_keys set claimed_at = now() - interval '21 hours'",
        ),
        (
            "",
            "stuck-keys",
            "problem",
            "21h",
            "delete from unsettled_keys",
        ),
        (
            "",
            "clean-up",
            "warning",
            "1 keys expired two hours ago",
            "update idempotency_keys set expires_at = expires_at + interval '90 minutes'",
        ),
        ("", "clean-up", "ok", "no key", ""),
    ] {
        execute(&owner, change).await;
        doctor(&service, &[]).assert(check, result, said);
        execute(&owner, back).await;
    }
    let said = doctor(&service, &["--no-migrate"]);
    for check in [
        "synchronous-commit",
        "connections",
        "primary",
        "autovacuum-tables",
        "schema",
        "stuck-keys",
    ] {
        said.assert(check, "ok", "");
    }
}

/// One in `PROCESSING` whose lease ended an hour ago, and one that the clean-up should have deleted.
const KEYS_LEFT_LYING: &str = "
    insert into idempotency_keys (merchant_id, operation, key, fingerprint, fingerprint_version, fingerprint_fields, state,
        attempt, owner, lease_expires_at, response_status, response_headers, response_body, created_at, completed_at, expires_at)
    select 'acme', 'create_payment', state, sha256('k'), 1, '', state, 1, gen_random_uuid(),
        case state when 'PROCESSING' then now() - interval '1 hour' end,
        case state when 'COMPLETED' then 201 end,
        case state when 'COMPLETED' then '[]'::jsonb end,
        case state when 'COMPLETED' then ''::bytea end,
        now() - interval '27 hours',
        case state when 'COMPLETED' then now() end,
        now() - interval '3 hours'
    from unnest(array['PROCESSING', 'COMPLETED']) as state;
    insert into unsettled_keys values ('acme', 'create_payment', 'PROCESSING', now() - interval '3 hours');
";

#[test]
fn without_a_database_it_says_so_and_checks_the_rest() {
    let output = output(&nowhere(), &["--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!text.contains("hunter2"), "{text}");
    let said = Said::of(&output);
    assert_eq!(said.status, Some(1));
    assert_eq!(said.with("problem"), ["database"]);
    said.assert("database", "problem", "127.0.0.1:1/d as u");
    said.assert("gateway", "warning", "simulated");
    said.assert("lock-timeout", "ok", "5s");
    assert!(!said.findings.contains_key("fsync"));
}

#[test]
fn settings_that_are_not_good_together_are_told() {
    for (flags, check, result, said) in [
        (
            &["--fingerprint-secret=short"][..],
            "fingerprint-secret",
            "warning",
            "16 bytes",
        ),
        (
            &["--fingerprint-secret=a-secret-that-is-long,change-me-change-me"],
            "fingerprint-secret",
            "warning",
            "public",
        ),
        (
            &[
                "--fingerprint-secret=development-only-fingerprint-secret-of-make-run",
                "--gateway=stripe",
            ],
            "fingerprint-secret",
            "problem",
            "public",
        ),
        (
            &["--key-ttl=10s"],
            "key-ttl",
            "problem",
            "PAYONCE_GATEWAY_TIMEOUT",
        ),
        (&["--key-ttl=59m"], "key-ttl", "warning", "59m"),
        (&["--key-ttl=1h"], "key-ttl", "ok", "1h"),
        (
            &["--lock-timeout=999ms"],
            "lock-timeout",
            "warning",
            "PAYONCE_LOCK_TIMEOUT",
        ),
        (
            &["--lock-timeout=61s"],
            "lock-timeout",
            "warning",
            "PAYONCE_LOCK_TIMEOUT",
        ),
        (&["--lock-timeout=1s"], "lock-timeout", "ok", "1s"),
        (
            &["--max-retries=101"],
            "duplicates-wait",
            "warning",
            "PAYONCE_LOCK_TIMEOUT",
        ),
        (&["--max-retries=102"], "duplicates-wait", "ok", "5s 100ms"),
        (&["--lock-timeout=3s"], "duplicates-wait", "ok", "5s"),
        (
            &["--console-token=a-token-of-the-tests"],
            "example-secrets",
            "ok",
            "none",
        ),
        (
            &["--console-token=change-me-change-me"],
            "example-secrets",
            "warning",
            "PAYONCE_CONSOLE_TOKEN",
        ),
        (
            &[
                "--database-url=postgres://u:public-password@127.0.0.1:1/d",
                "--gateway=stripe",
                "--stripe-secret-key=change-me",
            ],
            "example-secrets",
            "problem",
            "DATABASE_URL and PAYONCE_STRIPE_SECRET_KEY",
        ),
        (
            &["--fingerprint-secret=public-fingerprint-secret-for-a-try"],
            "fingerprint-secret",
            "warning",
            "public",
        ),
        (
            &["--max-retries=1201"],
            "duplicates-wait",
            "warning",
            "give up",
        ),
        (
            &["--retry-interval=4ms", "--max-retries=2000"],
            "duplicates-wait",
            "warning",
            "look each 4ms",
        ),
        (
            &["--gateway-timeout=16s"],
            "gateway-timeout",
            "warning",
            "stops waits for 15s",
        ),
        (
            &["--gateway-timeout=100ms"],
            "gateway-timeout",
            "warning",
            "202",
        ),
        (
            &["--recovery-interval=61s"],
            "recovery-interval",
            "warning",
            "1s",
        ),
        (
            &["--gateway=stripe"],
            "gateway",
            "problem",
            "PAYONCE_STRIPE_SECRET_KEY",
        ),
    ] {
        doctor(&nowhere(), flags).assert(check, result, said);
    }
}

#[test]
fn the_gateway_is_asked_and_what_it_answers_is_told() {
    let gateway = TestGateway::start();
    let base = format!("--stripe-api-base={}", gateway.url());
    let key = format!("--stripe-secret-key={SECRET_KEY}");
    let ask = |more: &[&str]| {
        let flags = [
            &["--gateway=stripe", &base, &key, "--gateway-timeout=1s"],
            more,
        ]
        .concat();
        doctor(&nowhere(), &flags)
    };
    ask(&[]).assert("gateway", "warning", "test key");
    assert_eq!(gateway.calls(Endpoint::ListIntents).received, 1);
    assert_eq!(gateway.ledger().charges.len(), 0);
    gateway.script([
        (Endpoint::ListIntents, Fault::ErrorBefore),
        (Endpoint::ListIntents, Fault::Hold),
    ]);
    ask(&[]).assert("gateway", "warning", "500");
    ask(&[]).assert("gateway", "problem", "does not answer");
    gateway.release();
    gateway.script([(Endpoint::ListIntents, Fault::WrongVersion)]);
    ask(&[]).assert("gateway", "problem", "Invalid Stripe API version");
    let refused = output(
        &nowhere(),
        &[
            "--gateway=stripe",
            &base,
            "--stripe-secret-key=sk_live_hunter2",
            "--json",
        ],
    );
    let text = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!text.contains("hunter2"), "{text}");
    Said::of(&refused).assert("gateway", "problem", "status 401");
    gateway.refuse();
    ask(&[]).assert("gateway", "problem", "refused");
}
