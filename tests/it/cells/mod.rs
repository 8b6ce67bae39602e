//! Cells: databases side by side, each with its nodes, and merchants that move from one to another.

mod fence;
mod keys;
#[cfg(feature = "failpoints")]
mod killed;
mod load;
mod lost_cell;
mod proxy;
mod refused;
mod tables;
mod wait;

use std::process::{Command, Output};

use payonce::database::pool_options;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};

use crate::support::process::{json, program, run};
use crate::support::rows::execute;

/// The secret of the tests' services, as a database knows it.
async fn sign(pool: &PgPool) {
    execute(
        pool,
        "insert into fingerprint_secrets (secret_id) values ('00000001')",
    )
    .await;
}

/// A second database on the server of the test's own. It is dropped with the test.
struct SecondDatabase {
    options: PgConnectOptions,
    server: PgConnectOptions,
}

impl SecondDatabase {
    /// With the schema.
    async fn create(first: &PgConnectOptions) -> Self {
        let name = format!("payonce_cell_{}", uuid::Uuid::now_v7().simple());
        let server = first.clone().database("postgres");
        run_on(&server, &format!("create database {name}")).await;
        let second = Self {
            options: first.clone().database(&name),
            server,
        };
        let pool = second.pool().await;
        payonce::database::migrate(&pool).await.expect("migrated");
        pool.close().await;
        second
    }

    async fn pool(&self) -> PgPool {
        pool(&self.options).await
    }
}

impl Drop for SecondDatabase {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.options.get_database());
        let drop = format!("drop database {} with (force)", name.expect("a name"));
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(run_on(&server, &drop));
        });
        let _ = dropping.join();
    }
}

async fn pool(options: &PgConnectOptions) -> PgPool {
    let pool = pool_options().max_connections(4);
    pool.connect_with(options.clone()).await.expect("a pool")
}

async fn run_on(database: &PgConnectOptions, sql: &str) {
    let mut connection = PgConnection::connect_with(database)
        .await
        .expect("a connection");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .expect("executed");
    connection.close().await.expect("closed");
}

/// `payonce merchants move` from one database to another, which is cell 2's.
fn mover(from: &PgConnectOptions, to: &PgConnectOptions, merchant: &str) -> Command {
    move_to(from, to, merchant, "2")
}

fn move_to(from: &PgConnectOptions, to: &PgConnectOptions, merchant: &str, cell: &str) -> Command {
    let mut command = program("payonce", from);
    command
        .args(["merchants", "move", merchant, "--to-cell", cell])
        .env("PAYONCE_MOVE_DATABASE_URL", to.to_url_lossy().as_str());
    command
}

/// Runs a command beside the test, whose services share its thread.
async fn run_beside(mut command: Command) -> Output {
    let ran = tokio::task::spawn_blocking(move || run(&mut command));
    ran.await.expect("no panic")
}

/// Moves a merchant to its end, and returns the report.
async fn moved(command: Command) -> Value {
    let output = run_beside(command).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    json(&output)
}

/// A merchant's move began long ago: every node has seen it.
async fn age_moves(pool: &PgPool) {
    execute(
        pool,
        "update merchants set move_since = move_since - interval '1 minute' where move_state = 'LEAVING'",
    )
    .await;
}

/// How far a merchant's move is, or `-` where it is served, or nothing where it is not there.
async fn state(pool: &PgPool, merchant: &str) -> String {
    let state = sqlx::query_scalar(
        "select coalesce(move_state, '-') from merchants where merchant_id = $1",
    );
    let state: Option<String> = state
        .bind(merchant)
        .fetch_optional(pool)
        .await
        .expect("a state");
    state.unwrap_or_default()
}

/// The triggers of the fence.
async fn triggers(pool: &PgPool) -> Vec<String> {
    sqlx::query_scalar(
        "select tgrelid::regclass::text || ' ' || tgname from pg_trigger where not tgisinternal order by 1",
    )
    .fetch_all(pool)
    .await
    .expect("the catalog")
}

/// All rows of a merchant as texts, without what a move itself writes.
async fn rows_of(pool: &PgPool, merchant: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for table in payonce::merchants::moves::TABLES {
        let table = table.name;
        let sql = format!(
            "select '{table} ' || (to_jsonb(t) - '{{move_state,move_cell,move_id,move_since}}'::text[])::text \
             from {table} t where merchant_id = $1 order by 1"
        );
        let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(merchant.to_owned())
            .fetch_all(pool)
            .await
            .expect("rows");
        rows.extend(found);
    }
    rows
}
