//! The roles of `deploy/roles.sql`: each can do its work and nothing else.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

use crate::support::cluster::{Cluster, postgres_program};
use crate::support::process::{
    Server, error_line, json as stdout, merchant, plain_url, program, run,
};
use crate::support::service::{Merchant, count, payment, until_unsettled};

/// A cluster on which an operator has run `deploy/roles.sql`, migrated as the owner, and run it again.
struct Installation {
    cluster: Cluster,
    /// A superuser's.
    pool: PgPool,
}

impl Installation {
    async fn new() -> Self {
        let cluster = Cluster::start();
        let pool = PgPool::connect_with(cluster.options())
            .await
            .expect("a pool");
        let installation = Self { cluster, pool };
        installation.run_roles_sql();
        let migrated = run(program("payonce", &installation.role("payonce_owner")).arg("migrate"));
        assert!(migrated.status.success(), "{migrated:?}");
        installation.run_roles_sql();
        installation
    }

    fn run_roles_sql(&self) {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/roles.sql");
        let psql = run(Command::new(postgres_program("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file])
            .arg(plain_url(&self.cluster.options())));
        assert!(psql.status.success(), "{psql:?}");
    }

    fn role(&self, name: &str) -> PgConnectOptions {
        self.cluster.options().username(name)
    }

    /// Executes a statement with this role. Returns PostgreSQL's SQLSTATE.
    async fn refusal(&self, role: &str, statement: &'static str) -> Option<String> {
        let mut connection = PgConnection::connect_with(&self.role(role))
            .await
            .expect("a connection");
        let refused = sqlx::raw_sql(statement).execute(&mut connection).await;
        let code = refused
            .err()
            .and_then(|error| Some(error.as_database_error()?.code()?.into_owned()));
        connection.close().await.expect("an end");
        code
    }

    async fn assert_refused(&self, role: &str, statements: &[&'static str]) {
        const INSUFFICIENT_PRIVILEGE: &str = "42501";
        for statement in statements {
            let code = self.refusal(role, statement).await;
            assert_eq!(
                code.as_deref(),
                Some(INSUFFICIENT_PRIVILEGE),
                "{role}: {statement}"
            );
        }
    }

    fn serve(&self, settings: &[(&str, &str)]) -> Server {
        Server::start_with(&self.role("payonce_service"), settings, &["--no-migrate"])
    }

    fn merchant(&self, server: &Server) -> Merchant {
        merchant(&self.role("payonce_owner"), &server.url, "acme")
    }
}

#[tokio::test]
async fn the_service_role_does_all_of_the_services_work() {
    let installation = Installation::new().await;
    let pool = &installation.pool;
    let mut server = installation.serve(&[("PAYONCE_SIMULATED_GATEWAY_LATENCY", "1ms")]);
    let acme = installation.merchant(&server);

    let paid = acme.pay("10").key("paid").send().await;
    assert_eq!(paid.status, 201);
    let refunds = format!("/v1/payments/{}/refunds", paid.text("id"));
    let refund = acme.post(&refunds, json!({"amount": "4"})).key("refund");
    assert_eq!(refund.send().await.status, 201);
    let declined = acme.pay("10").key("declined").card("4000000000000002");
    assert_eq!(declined.send().await.status, 402);
    for (operation, amount) in [("capture", "20"), ("cancel", "30")] {
        let mut held = payment(amount);
        held["captureMethod"] = json!("MANUAL");
        let held = acme.post("/v1/payments", held).key(amount).send().await;
        let path = format!("/v1/payments/{}/{operation}", held.text("id"));
        let done = acme.post(&path, json!({})).key(operation).send().await;
        assert_eq!(done.status, 200, "{operation}");
    }
    assert_eq!(acme.get("/v1/payments").await.status, 200);
    assert_eq!(acme.get(&refunds).await.status, 200);
    let record = acme.get("/v1/idempotency-keys/create_payment/paid").await;
    assert_eq!(record.json()["state"], "COMPLETED");
    assert_eq!(acme.get("/readyz").await.status, 200);
    let metrics = acme.get("/metrics").await;
    assert!(String::from_utf8_lossy(&metrics.bytes).contains("\npayonce_keys_processing 0"));
    server.signal(Signal::SIGTERM);
    assert!(server.ended().await.success());

    // Another process replays from the database and, killed in the middle of a charge, leaves work behind.
    let slow = [
        ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "30s"),
        ("PAYONCE_GATEWAY_TIMEOUT", "60s"),
        ("PAYONCE_LOCK_TIMEOUT", "100ms"),
    ];
    let mut dying = installation.serve(&slow);
    let acme = Merchant {
        url: dying.url.clone(),
        ..acme
    };
    assert!(acme.pay("10").key("paid").send().await.replayed());
    let left = tokio::spawn({
        let request = acme.pay("50").key("left");
        async move { request.try_send().await.is_err() }
    });
    until_unsettled(pool, 1).await;
    dying.kill();
    assert!(left.await.expect("no panic"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(pool, "unsettled_keys").await > 0 {
        assert!(Instant::now() < deadline, "it is never recovered");
        let recovered = run(program("payonce", &installation.role("payonce_service"))
            .args(["recover", "--once"])
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
        assert!(recovered.status.success(), "{recovered:?}");
    }
    assert_eq!(count(pool, "payments").await, 5);
}

/// The doctor, with the settings and the role that are shipped, finds nothing that keeps the service from working.
#[tokio::test]
async fn the_doctor_has_no_problem_with_the_roles() {
    let installation = Installation::new().await;
    for (role, flags) in [
        ("payonce_service", &["--no-migrate"][..]),
        ("payonce_service", &[]),
        ("payonce_owner", &[]),
    ] {
        let examined = run(program("payonce", &installation.role(role))
            .args(["doctor", "--json"])
            .args(flags)
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests")
            .env("PAYONCE_CONSOLE_TOKEN", "a token of the tests"));
        let report = stdout(&examined);
        // The cluster of the tests has fsync off.
        let findings = report["findings"].as_array().expect("findings").iter();
        let problems: Vec<_> = findings
            .filter(|finding| finding["result"] == "problem" && finding["name"] != "fsync")
            .collect();
        assert!(problems.is_empty(), "{role}: {problems:#?}");
    }
}

#[tokio::test]
async fn the_service_role_alters_neither_the_schema_nor_who_may_come_in() {
    let installation = Installation::new().await;
    let refused = [
        "create table t ()",
        "create temporary table t ()",
        "create schema s",
        "alter table payments add column c text",
        "alter table payments drop constraint payments_idempotency_key",
        "create index on payments (state)",
        "drop table payments",
        "truncate idempotency_keys",
        "update unsettled_keys set claimed_at = now()",
        "insert into merchants values ('evil', 'Evil')",
        "insert into api_keys values ('acme', 'key', '')",
        "update api_keys set revoked_at = null",
        "delete from api_keys",
        "delete from operator_actions",
        "update operator_actions set operator = 'nobody'",
        "delete from _sqlx_migrations",
        "create role r",
        "set role payonce_owner",
    ];
    installation
        .assert_refused("payonce_service", &refused)
        .await;
    let migrating = run(program("payonce", &installation.role("payonce_service"))
        .arg("serve")
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests")
        .env("PAYONCE_LOG", "error"));
    assert_eq!(migrating.status.code(), Some(1));
    assert!(error_line(&migrating).contains("permission denied"));
}

#[tokio::test]
async fn the_clean_up_role_deletes_keys_and_can_do_nothing_else() {
    let installation = Installation::new().await;
    let server = installation.serve(&[]);
    let acme = installation.merchant(&server);
    for key in ["old-1", "old-2", "new"] {
        assert_eq!(acme.pay("1").key(key).send().await.status, 201);
    }
    sqlx::query(
        "update idempotency_keys set expires_at = now() - interval '1 hour' where key like 'old-%'",
    )
    .execute(&installation.pool)
    .await
    .expect("the rows' time is moved");
    let cleanup = || {
        run(&mut program(
            "payonce-cleanup",
            &installation.role("payonce_cleanup"),
        ))
    };
    let report = cleanup();
    assert!(report.status.success(), "{report:?}");
    let report = stdout(&report);
    assert_eq!(
        (&report["deleted"], &report["remaining"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(count(&installation.pool, "idempotency_keys").await, 1);
    assert_eq!(count(&installation.pool, "payments").await, 3);

    installation
        .assert_refused(
            "payonce_cleanup",
            &[
                "insert into idempotency_keys (key) values ('k')",
                "update idempotency_keys set expires_at = now()",
                "select key from idempotency_keys for update",
                "select response_body from idempotency_keys",
                "select fingerprint from idempotency_keys",
                "select * from idempotency_keys",
                "truncate idempotency_keys",
                "select from payments",
                "delete from payments",
                "select from refunds",
                "delete from refunds",
                "select from merchants",
                "select from api_keys",
                "select from unsettled_keys",
                "delete from unsettled_keys",
                "delete from _sqlx_migrations",
                "create table t ()",
                "create temporary table t ()",
                "set role payonce_service",
            ],
        )
        .await;
}

/// A migration that adds a table must grant its privileges in `deploy/roles.sql`.
#[tokio::test]
async fn every_table_has_an_owner_and_its_rights() {
    let installation = Installation::new().await;
    let forgotten: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class
        where relnamespace = 'public'::regnamespace
            and relkind = 'r'
            and (
                pg_get_userbyid(relowner) <> 'payonce_owner'
                or not has_table_privilege('payonce_service', oid, 'select')
            )",
    )
    .fetch_all(&installation.pool)
    .await
    .expect("the catalogue");
    assert!(forgotten.is_empty(), "{forgotten:?}");
    // A table of another owner is taken over, with its privileges.
    sqlx::raw_sql("alter table payments owner to postgres")
        .execute(&installation.pool)
        .await
        .expect("an owner");
    installation.run_roles_sql();
    let owner: String =
        sqlx::query_scalar("select tableowner::text from pg_tables where tablename = 'payments'")
            .fetch_one(&installation.pool)
            .await
            .expect("the catalogue");
    assert_eq!(owner, "payonce_owner");
}

/// A backup, or a long report, reads while the roles are given their rights: nobody waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_are_given_beside_an_open_reader() {
    let installation = Installation::new().await;
    let mut reader = installation.pool.begin().await.expect("a transaction");
    for table in ["payments", "idempotency_keys", "merchants"] {
        sqlx::query(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
            .execute(&mut *reader)
            .await
            .expect("a look");
    }
    // If it took an unnecessary lock, it would fail by its own time-out.
    installation.run_roles_sql();
    reader.rollback().await.expect("an end");
}

/// A move makes triggers, which takes the tables' owner; they refuse what the service writes.
#[tokio::test]
async fn the_owner_moves_a_merchant_and_the_service_is_refused_its_writes() {
    let installation = Installation::new().await;
    let server = installation.serve(&[]);
    let acme = installation.merchant(&server);
    assert_eq!(acme.pay("10").key("k").send().await.status, 201);
    for statement in [
        "create database other owner payonce_owner",
        "grant connect on database other to payonce_owner",
    ] {
        sqlx::query(statement)
            .execute(&installation.pool)
            .await
            .expect(statement);
    }
    let other = installation.role("payonce_owner").database("other");
    let migrated = run(program("payonce", &other).arg("migrate"));
    assert!(migrated.status.success(), "{migrated:?}");
    let signer: String = sqlx::query_scalar("select secret_id from fingerprint_secrets")
        .fetch_one(&installation.pool)
        .await
        .expect("the service's secret");
    let mut there = PgConnection::connect_with(&other).await.expect("there");
    sqlx::query("insert into fingerprint_secrets (secret_id) values ($1)")
        .bind(signer)
        .execute(&mut there)
        .await
        .expect("the same secret");
    let arguments = ["merchants", "move", "acme", "--to-cell", "2"];
    let to = other.to_url_lossy();
    let mover = |role: &str| {
        let mut mover = program("payonce", &installation.role(role));
        mover
            .args(arguments)
            .env("PAYONCE_MOVE_DATABASE_URL", to.as_str());
        mover
    };
    let refused = run(&mut mover("payonce_service"));
    assert_eq!(refused.status.code(), Some(1));
    let said = error_line(&refused);
    assert!(
        said.contains("payonce_service does not own the table"),
        "{said}"
    );
    let moved = run(&mut mover("payonce_owner"));
    assert!(moved.status.success(), "{moved:?}");
    let write = "insert into unsettled_keys (merchant_id, operation, key, claimed_at) values ('acme', 'o', 'k', now())";
    let refusal = installation.refusal("payonce_service", write).await;
    let refusal = refusal.expect("it is refused");
    assert!(refusal.contains("40M01"), "{refusal}");
}
