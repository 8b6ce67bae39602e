//! Shared by the scenarios: databases, servers and loads.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use sqlx::Connection;

use crate::checks::Checks;
use crate::database::{Database, DatabaseServer};
use crate::fill::MERCHANT;
use crate::load::closed::{self, Driven, Load};
use crate::load::{Connection as HttpConnection, Keys};
use crate::options::Plan;
use crate::programs::{self, Programs};
use crate::progress::Progress;
use crate::report::{Run, Series};
use crate::requests::{Customers, Request};
use crate::rivals::{self, Answer, Phases};
use crate::server::{Address, Server};
use crate::store::{self, Counts};

/// What every scenario needs. A clone measures beside the others, on another server or with other programs.
#[derive(Clone)]
pub struct Bench {
    pub plan: Plan,
    pub server: Arc<DatabaseServer>,
    pub programs: Programs,
    pub checks: Arc<Checks>,
    pub progress: Arc<Progress>,
}

/// A database with payonce's schema, and a merchant with an API key.
#[derive(Clone, Debug)]
pub struct Site {
    pub database: Database,
    pub api_key: String,
}

/// What rivals are sent, who ask for none: the same bytes as everybody.
pub fn no_api_key() -> String {
    format!("sk_{}", "0".repeat(64))
}

impl Bench {
    /// The same on another server.
    pub fn on(&self, server: DatabaseServer) -> Self {
        Self {
            server: Arc::new(server),
            ..self.clone()
        }
    }

    /// The same with payonce's programs from another folder.
    pub fn with_payonce(&self, folder: PathBuf) -> Self {
        Self {
            programs: self.programs.with_payonce(folder),
            ..self.clone()
        }
    }

    /// A new database with payonce's schema and a merchant.
    pub async fn site(&self, name: &str) -> anyhow::Result<Site> {
        let database = self.server.create(name).await?;
        let url = database.url();
        let run = async |arguments: &[&str]| {
            let mut command = self.programs.payonce("payonce");
            command.args(arguments).env("DATABASE_URL", &url);
            programs::output(&mut command).await
        };
        run(&["migrate"]).await?;
        let created = run(&["merchants", "create", MERCHANT]).await?;
        let created: Value = serde_json::from_str(&created)?;
        let api_key = created["apiKey"].as_str().context("no API key")?.to_owned();
        Ok(Site { database, api_key })
    }

    /// Starts the release `payonce serve` with these settings and a gateway without latency. Everything else has its default.
    pub async fn payonce(&self, site: &Site, settings: &[(&str, &str)]) -> anyhow::Result<Server> {
        let mut command = self.programs.payonce("payonce");
        command
            .arg("serve")
            .env("DATABASE_URL", site.database.url())
            .env("PAYONCE_LISTEN", "127.0.0.1:0")
            .env("PAYONCE_FINGERPRINT_SECRET", "the benchmark's own secret")
            .env("PAYONCE_SIMULATED_GATEWAY_LATENCY", "0s")
            // The log has the line with the address, and warnings.
            .env("PAYONCE_LOG", "warn,payonce::cli::serve=info")
            .env("PAYONCE_LOG_FORMAT", "json")
            .envs(settings.iter().copied());
        Server::start(command).await
    }

    /// A per-request handler, on a database with its schema.
    pub async fn per_request(
        &self,
        phases: Phases,
        database: &Database,
        pool: u32,
    ) -> anyhow::Result<Server> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command
            .arg(match phases {
                Phases::One => "reference",
                Phases::Two => "two-phase",
            })
            .arg(format!("--pool={pool}"))
            .env("DATABASE_URL", database.url());
        Server::start(command).await
    }

    /// A database with the schema of the reference handler and of pgbench.
    pub async fn rival_database(&self, name: &str) -> anyhow::Result<Database> {
        let database = self.server.create(name).await?;
        let mut connection = database.connect().await?;
        store::execute(&mut connection, rivals::SCHEMA.to_owned()).await?;
        connection.close().await?;
        Ok(database)
    }

    /// Starts the bare endpoint, with this answer.
    pub async fn bare(&self, answer: &Answer) -> anyhow::Result<Server> {
        let file = tempfile::NamedTempFile::new()?;
        serde_json::to_writer(&file, answer)?;
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.arg("bare").arg("--answer").arg(file.path());
        Server::start(command).await
    }

    pub fn load(&self, connections: u32) -> Load {
        Load {
            connections,
            threads: self.plan.threads,
            warm_up: self.plan.warm_up,
            duration: self.plan.duration,
            postmasters: self.server.postmasters.clone(),
        }
    }

    /// The duration of a try that only looks for a setting.
    pub fn short_load(&self, connections: u32) -> Load {
        Load {
            warm_up: self.plan.warm_up / 2,
            duration: self.plan.duration.min(Duration::from_secs(2)),
            ..self.load(connections)
        }
    }

    /// Sends new payments to a service, and checks that the database has exactly what was answered.
    pub async fn drive_fresh(
        &self,
        to: Address,
        path: &str,
        site: &Site,
        load: Load,
    ) -> anyhow::Result<Driven> {
        let database = &site.database;
        self.server.settle_down().await?;
        let before = count(database).await?;
        let keys = Keys::fresh(random_seed());
        let request = Request::to(path, &site.api_key, keys.kind(), Customers::Many);
        let driven = closed::drive(to, request, keys, load).await?;
        let after = count(database).await?;
        self.checks.created(before, after, &driven.tally)?;
        Ok(driven)
    }
}

impl Run {
    /// The result of a closed loop.
    pub fn of(series: Series, connections: u32, round: u32, driven: &Driven) -> Self {
        Self {
            series,
            connections,
            round,
            per_second: driven.per_second,
            latency: Some(driven.latency),
            other_answers: driven.tally.others(),
            usage: driven.usage,
        }
    }
}

/// Counts the final keys and payments of a database.
pub async fn count(database: &Database) -> anyhow::Result<Counts> {
    let mut connection = database.connect().await?;
    let counts = store::count_final(&mut connection).await?;
    connection.close().await?;
    Ok(counts)
}

/// Sends a single request, and returns the whole answer.
pub async fn send(to: Address, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut connection = HttpConnection::open(to.socket).await?;
    connection.exchange(request).await?;
    Ok(connection.last_answer().to_vec())
}

/// Returns keys that no other run has used.
pub fn random_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}
