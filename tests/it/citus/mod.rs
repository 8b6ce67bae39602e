//! A real Citus: every statement is planned and executed there, and the service works on it. `PAYONCE_TEST_CITUS_URL` names the
//! coordinator of a cluster that has workers, as a superuser. Each test works in a schema and with a role of its own, and drops both.

mod plans;
mod service;

use std::process::Command;

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::cluster::postgres_program;
use crate::support::deployed;
use crate::support::process::{plain_url, program, run};
use crate::support::skipped::skip;

const URL: &str = "PAYONCE_TEST_CITUS_URL";

/// payonce's tables, distributed over the cluster.
struct Installation {
    admin: PgConnectOptions,
    name: String,
}

impl Installation {
    /// Returns `None`, and says what is skipped, if no cluster is named.
    async fn new(skipped: &str) -> Option<Self> {
        let Ok(url) = std::env::var(URL) else {
            skip(&format!("{skipped}: {URL} names no cluster"));
            return None;
        };
        let admin: PgConnectOptions = url.parse().expect("a URL");
        let installation = Self {
            admin,
            name: format!("payonce_test_{}", Uuid::now_v7().simple()),
        };
        let name = &installation.name;
        installation
            .as_admin(&format!(
                "create role {name} login superuser;
                 alter role {name} set search_path = {name};
                 alter role {name} set statement_timeout = '20s';
                 alter role {name} set lock_timeout = '3s';
                 create schema {name} authorization {name};"
            ))
            .await;
        let migrated = run(program("payonce", &installation.database()).arg("migrate"));
        assert!(migrated.status.success(), "{migrated:?}");
        installation.distribute();
        Some(installation)
    }

    fn distribute(&self) {
        let script = deployed::path("citus/distribute.sql");
        let psql = run(Command::new(postgres_program("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1"])
            // Fewer than by default: each shard is a table on a worker.
            .args(["-c", "set citus.shard_count = 4", "-f"])
            .arg(script)
            .arg(plain_url(&self.database())));
        assert!(psql.status.success(), "{psql:?}");
    }

    /// As the role of this installation, whose `search_path` is its schema.
    fn database(&self) -> PgConnectOptions {
        self.admin.clone().username(&self.name)
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.database())
            .await
            .expect("connected")
    }

    async fn as_admin(&self, statements: &str) {
        let mut connection = PgConnection::connect_with(&self.admin)
            .await
            .expect("the cluster is there");
        for statement in statements.split(';') {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
                .execute(&mut connection)
                .await
                .expect(statement);
        }
        connection.close().await.expect("closed");
    }

    /// Removes what the test has made.
    async fn remove(self) {
        let name = &self.name;
        self.as_admin(&format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}';
             drop schema {name} cascade;
             drop role {name}"
        ))
        .await;
    }
}
