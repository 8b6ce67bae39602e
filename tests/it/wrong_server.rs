//! A connection, or a server, that cannot do the work: it is dropped, and the work continues as soon as another can.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::cluster::Cluster;
use crate::support::process::{error_line, program, run};
use crate::support::rows::end_leases;
use crate::support::scripted::Turn;
use crate::support::service::{Service, client, count};

async fn readiness(service: &Service) -> u16 {
    let asked = client().get(format!("{}/readyz", service.url)).send().await;
    asked.expect("an answer").status().as_u16()
}

/// New sessions of this database take no writes, as those of a standby; the sessions that there are end.
async fn turn_read_only(pool: &PgPool, on: bool) {
    let (database, setting) = (
        sqlx::query_scalar::<_, String>("select quote_ident(current_database())")
            .fetch_one(pool)
            .await
            .expect("a name"),
        if on { "on" } else { "off" },
    );
    let sql = format!("alter database {database} set default_transaction_read_only = {setting}");
    for sql in [
        "set default_transaction_read_only = off",
        &sql,
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()",
    ] {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        sql.execute(pool).await.expect("executed");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn while_the_address_leads_to_a_server_without_writes_it_is_unavailable(
    options: PgPoolOptions,
    db: PgConnectOptions,
) {
    let operator = options.max_connections(1).connect_with(db.clone());
    let operator = operator.await.expect("a pool");
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10").key("first").send().await.text("id");
    turn_read_only(&operator, true).await;
    assert_eq!(readiness(&service).await, 503);
    let payment = acme.pay("10").key("second");
    let refused = payment.send().await;
    refused.assert_problem(503, "database-unavailable", "same-key");
    let refund = acme.post(
        &format!("/v1/payments/{id}/refunds"),
        serde_json::json!({"amount": "1"}),
    );
    let refund = refund.key("refund");
    let refused = refund.send().await;
    refused.assert_problem(503, "database-unavailable", "same-key");
    turn_read_only(&operator, false).await;
    let healed = async {
        while readiness(&service).await != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let healed = tokio::time::timeout(Duration::from_secs(20), healed).await;
    healed.expect("it heals by itself");
    assert_eq!(payment.send().await.status.as_u16(), 201);
    assert_eq!(refund.send().await.status.as_u16(), 201);
    assert_eq!(count(&operator, "payments").await, 2);
    operator.close().await;
}

/// `holder` holds the rows until it rolls back.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn who_waits_for_a_held_row_is_told_that_it_is_in_use(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let id = acme.pay("10").key("first").send().await.text("id");
    let pool = PgPool::connect_with(db).await.expect("a pool");
    let hold = |sql: &'static str| {
        let pool = pool.clone();
        async move {
            let mut holder = pool.begin().await.expect("begun");
            let held = sqlx::raw_sql(sql).execute(&mut *holder).await;
            held.expect("held");
            holder
        }
    };
    // The payment's row, by whoever is at work on it.
    let holder = hold("select from payments for update").await;
    let path = format!("/v1/payments/{id}/refunds");
    let refund = acme
        .post(&path, serde_json::json!({"amount": "1"}))
        .key("refund");
    let busy = refund.send().await;
    busy.assert_problem(409, "payment-busy", "same-key");
    let cancel = acme.post(&format!("/v1/payments/{id}/cancel"), serde_json::json!({}));
    let busy = cancel.key("cancel").send().await;
    busy.assert_problem(409, "payment-busy", "same-key");
    holder.rollback().await.expect("let go");
    assert_eq!(refund.send().await.status.as_u16(), 201);
    // The key's row, by a claim that is not committed.
    let holder = hold(
        "insert into idempotency_keys select (jsonb_populate_record(null::idempotency_keys, \
         to_jsonb(k) || '{\"key\": \"second\"}')).* from idempotency_keys k where key = 'first'",
    )
    .await;
    let payment = acme.pay("10").key("second");
    let in_use = payment.send().await;
    in_use.assert_problem(409, "idempotency-key-in-use", "same-key");
    holder.rollback().await.expect("let go");
    assert_eq!(payment.send().await.status.as_u16(), 201);
    // The row of a claim whose owner is gone, by whoever takes it over.
    service.gateway.then(&[Turn::Unknown]);
    let left = acme.pay("10").key("left");
    assert_eq!(left.send().await.status.as_u16(), 202);
    end_leases(&pool).await;
    let holder = hold("select from idempotency_keys where state = 'PROCESSING' for update").await;
    let in_use = left.send().await;
    in_use.assert_problem(409, "idempotency-key-in-use", "same-key");
    holder.rollback().await.expect("let go");
    pool.close().await;
}

/// The lanes' established sessions take no writes any more, as after their server has become a standby. They are given up by
/// what they answer: nobody ends them.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_lane_gives_up_a_connection_that_takes_no_writes(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    assert_eq!(
        acme.pay("10").key("first").send().await.status.as_u16(),
        201
    );
    let pool = PgPool::connect_with(db).await.expect("a pool");
    // What a standby answers to a claim: the code is all that is looked at.
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin \
         raise exception 'cannot execute INSERT in a read-only transaction' using errcode = '25006'; \
         end $$; \
         create trigger refuse before insert on payments execute function refuse()";
    sqlx::raw_sql(refuse).execute(&pool).await.expect("created");
    let before = sessions(&pool).await;
    let payment = acme.pay("10").key("second");
    payment
        .send()
        .await
        .assert_problem(503, "database-unavailable", "same-key");
    let healed = "drop trigger refuse on payments";
    sqlx::raw_sql(healed).execute(&pool).await.expect("dropped");
    let given_up = async {
        while before.is_subset(&sessions(&pool).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let given_up = tokio::time::timeout(Duration::from_secs(20), given_up).await;
    given_up.expect("the lane's session ends");
    assert_eq!(payment.send().await.status.as_u16(), 201);
    pool.close().await;
}

/// The server's processes behind the service's connections.
async fn sessions(pool: &PgPool) -> BTreeSet<i32> {
    let pids: Vec<i32> = sqlx::query_scalar(
        "select pid from pg_stat_activity \
         where datname = current_database() and application_name like 'payonce-test-%'",
    )
    .fetch_all(pool)
    .await
    .expect("the sessions");
    pids.into_iter().collect()
}

#[test]
fn a_standby_or_another_encoding_is_refused_at_start() {
    let cluster = Cluster::start();
    let refused = |database: &PgConnectOptions, arguments: &[&str]| {
        let output = run(program("payonce", database)
            .args(arguments)
            .env("PAYONCE_LISTEN", "127.0.0.1:0")
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        error_line(&output)
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let pool = PgPool::connect_with(cluster.options()).await;
        let pool = pool.expect("connected");
        let create = "create database latin encoding 'LATIN1' template template0 locale 'C'";
        sqlx::raw_sql(create).execute(&pool).await.expect("created");
        pool.close().await;
    });
    let latin = cluster.options().database("latin");
    for arguments in [&["serve"][..], &["migrate"]] {
        let line = refused(&latin, arguments);
        assert!(line.contains("encoding is LATIN1"), "{line}");
    }
    let doctor = run(program("payonce", &latin)
        .args(["doctor"])
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("stores text in LATIN1"));
    cluster.down();
    cluster.make_standby();
    cluster.up();
    for arguments in [&["serve"][..], &["migrate"], &["merchants", "list"]] {
        let line = refused(&cluster.options(), arguments);
        assert!(line.contains("accepts no writes"), "{line}");
    }
}

#[test]
fn a_parameter_that_is_not_known_is_refused_by_name_and_never_logged() {
    for name in ["sslpassword", "passwd"] {
        let mut command = program("payonce", &PgConnectOptions::new_without_pgpass());
        let output = run(command
            .arg("serve")
            .env(
                "DATABASE_URL",
                format!("postgres://u@127.0.0.1:1/d?{name}=TopSecret-1"),
            )
            .env("PAYONCE_LOG", "trace")
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests"));
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(name) && !said.contains("TopSecret"), "{said}");
    }
}
