//! New payments: payonce, payonce with groups of one, the per-request handlers and pgbench, in turns; another revision and a service
//! that runs already where they are asked for.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use sqlx::Connection;

use super::subject::Subject;
use crate::bench::{Bench, count};
use crate::database::Database;
use crate::options::{Options, Scenario};
use crate::pgbench::{self, Script};
use crate::process::Usage;
use crate::report::{ReferencePool, Report, Run, Series, TableUnderLoad};
use crate::revision::{self, Revision};
use crate::rivals::{CLAIM_AND_SETTLE, Phases};
use crate::store::{self, Updates};
use crate::yardstick::Yardstick;

/// The number of connections next to which pgbench is measured, so that both measurements are close in time.
const BESIDE_PGBENCH: u32 = 128;

/// PostgreSQL keeps a backend's counts to itself until it ends, or for some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is measured beside those that are always there.
pub struct Others {
    /// Another revision, and where its programs are.
    pub revision: Option<(Revision, PathBuf)>,
    pub yardstick: Option<Yardstick>,
}

impl Others {
    /// Before anything is measured: a build takes all of the machine.
    pub async fn open(bench: &Bench, options: &Options) -> anyhow::Result<Self> {
        let mut others = Self {
            revision: None,
            yardstick: None,
        };
        if !bench.plan.scenarios.contains(&Scenario::Fresh) {
            return Ok(others);
        }
        if let (Some(url), Some(database)) = (&options.yardstick, &options.yardstick_database) {
            others.yardstick = Some(Yardstick::open(bench, url, database).await?);
        }
        if let Some(name) = &options.against {
            bench.progress.expect(1);
            bench.progress.step(&format!("{name} is built"));
            others.revision = Some(revision::build(name).await?);
        }
        Ok(others)
    }
}

pub async fn fresh(bench: &Bench, others: &Others, report: &mut Report) -> anyhow::Result<()> {
    let plan = &bench.plan;
    let subjects = start(bench, others).await?;
    report.reference_pools = best_pools(&subjects, Series::Reference);
    report.two_phase_pools = best_pools(&subjects, Series::TwoPhase);
    let mut pgbench = Pgbench::start(bench, report).await?;
    let steps = u64::from(plan.rounds) * plan.connections.len() as u64;
    bench.progress.expect(steps * (subjects.len() as u64 - 1));
    bench
        .progress
        .expect(plan.connections.len() as u64 + u64::from(plan.rounds));
    for round in 1..=plan.rounds {
        for &connections in &plan.connections {
            for turn in 0..subjects.len() {
                // Each round begins with another one, so that none is always the first.
                let subject = &subjects[(turn + round as usize) % subjects.len()];
                // No ratio is made of it, and once shows what grouping brings.
                if subject.series == Series::PayonceAlone && round > 1 {
                    continue;
                }
                report.runs.push(subject.drive(connections, round).await?);
            }
            if connections == BESIDE_PGBENCH || plan.connections == [connections] {
                report.runs.push(pgbench.run(bench, round).await?);
            }
        }
    }
    for subject in subjects {
        if subject.series == Series::Payonce {
            let database = subject.stop().await?;
            report.table = Some(table_under_load(bench, &database).await?);
            bench.server.remove(&database).await?;
        } else {
            subject.finish().await?;
        }
    }
    bench.server.remove(&pgbench.database).await
}

/// In the order of their turns: what payonce is compared with most closely is measured next to it.
async fn start(bench: &Bench, others: &Others) -> anyhow::Result<Vec<Subject>> {
    let plan = &bench.plan;
    let per_request = async |series, phases, name| {
        let (pools, steps) = (&plan.reference_pools, &plan.connections);
        Subject::per_request(bench, (series, phases), name, pools, steps).await
    };
    let mut subjects = vec![per_request(Series::Reference, Phases::One, "reference").await?];
    if let Some((_, programs)) = &others.revision {
        let bench = bench.with_payonce(programs.clone());
        subjects.push(Subject::payonce(&bench, Series::Against, "against", &[]).await?);
    }
    subjects.push(Subject::payonce(bench, Series::Payonce, "payonce", &[]).await?);
    subjects.extend(others.yardstick.as_ref().map(Subject::yardstick));
    subjects.push(per_request(Series::TwoPhase, Phases::Two, "two_phase").await?);
    let alone = [("PAYONCE_GROUP_SIZE", "1")];
    subjects.push(Subject::payonce(bench, Series::PayonceAlone, "alone", &alone).await?);
    Ok(subjects)
}

fn best_pools(subjects: &[Subject], series: Series) -> Vec<ReferencePool> {
    let subject = subjects.iter().find(|subject| subject.series == series);
    subject.map_or(Vec::new(), |subject| subject.best_pools().to_vec())
}

/// pgbench at the best number of clients.
struct Pgbench {
    database: Database,
    script: String,
    clients: u32,
    /// Distinguishes the payments of different runs.
    started: u64,
}

impl Pgbench {
    async fn start(bench: &Bench, report: &mut Report) -> anyhow::Result<Self> {
        let body: String = crate::requests::BODY
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        // As long as a payment's answer, which is some 600 bytes.
        let script = CLAIM_AND_SETTLE.replace("ANSWER", &body.repeat(2));
        let mut pgbench = Self {
            database: bench.rival_database("pgbench").await?,
            script,
            clients: 0,
            started: 0,
        };
        let mut best = (0, 0.0);
        for clients in allowed_clients(bench) {
            bench.progress.expect(1);
            pgbench.clients = clients;
            let run = pgbench.run(bench, 0).await?;
            if run.per_second > best.1 {
                best = (clients, run.per_second);
            }
            report.runs.push(run);
        }
        pgbench.clients = best.0;
        ensure!(
            pgbench.clients > 0,
            "the server allows too few connections for pgbench"
        );
        Ok(pgbench)
    }

    async fn run(&mut self, bench: &Bench, round: u32) -> anyhow::Result<Run> {
        let series = Series::Pgbench;
        let clients = self.clients;
        bench.progress.step(&format!(
            "{}, {clients} clients, round {round}",
            series.label()
        ));
        bench.server.settle_down().await?;
        self.started += 1;
        let before = count(&self.database).await?;
        let script = Script {
            sql: &self.script,
            variables: &[("base", self.started), ("n", 0)],
        };
        let duration = match round {
            0 => bench.short_load(clients).duration,
            _ => bench.plan.duration + bench.plan.warm_up,
        };
        let found =
            pgbench::run(&bench.programs, &self.database, &script, clients, duration).await?;
        let after = count(&self.database).await?;
        let added = u64::try_from(after.payments - before.payments).unwrap_or(0);
        bench
            .checks
            .equal("pgbench's payments", found.transactions, added)?;
        let added = u64::try_from(after.keys - before.keys).unwrap_or(0);
        bench
            .checks
            .equal("pgbench's keys", found.transactions, added)?;
        bench.progress.say(&format!("{:.0}/s", found.per_second));
        Ok(pgbench_run(series, clients, round, found))
    }
}

/// A run of pgbench, which reports no quantiles.
pub fn pgbench_run(series: Series, clients: u32, round: u32, found: pgbench::Result) -> Run {
    Run {
        series,
        connections: clients,
        round,
        per_second: found.per_second,
        latency: None,
        other_answers: 0,
        usage: Usage::default(),
    }
}

/// The numbers of clients for which the server has connections left.
pub fn allowed_clients(bench: &Bench) -> Vec<u32> {
    let pools: u32 = bench.plan.reference_pools.iter().sum();
    let allowed = u32::try_from(bench.server.settings.max_connections).unwrap_or(0);
    // Two per-request handlers, and three services of some 20 connections with a running one besides.
    let left = allowed.saturating_sub(2 * pools + 4 * 20 + 10);
    let clients = bench.plan.pgbench_clients.iter().copied();
    clients.filter(|clients| *clients <= left).collect()
}

/// The effect on the tables, read after all of the service's connections have ended.
async fn table_under_load(bench: &Bench, database: &Database) -> anyhow::Result<TableUnderLoad> {
    let counts = count(database).await?;
    let mut connection = database.connect().await?;
    let deadline = Instant::now() + PATIENCE;
    let (keys, payments) = loop {
        let keys = store::updates(&mut connection, "idempotency_keys").await?;
        let payments = store::updates(&mut connection, "payments").await?;
        if keys.all >= counts.keys && payments.all >= counts.payments {
            break (keys, payments);
        }
        ensure!(
            Instant::now() < deadline,
            "PostgreSQL does not report all updates: {keys:?} {payments:?} of {counts:?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let sizes = store::sizes(&mut connection, "idempotency_keys").await?;
    connection.close().await?;
    let of = |keys: i64| u64::try_from(keys).unwrap_or(0);
    bench
        .checks
        .equal("settles by one update each", of(counts.keys), of(keys.all))?;
    Ok(TableUnderLoad {
        keys: of(counts.keys),
        keys_hot_percent: hot_percent(keys),
        payments_hot_percent: hot_percent(payments),
        heap_bytes_per_key: sizes.heap as f64 / counts.keys as f64,
        index_bytes_per_key: sizes.indexes as f64 / counts.keys as f64,
    })
}

fn hot_percent(updates: Updates) -> f64 {
    updates.hot as f64 / updates.all.max(1) as f64 * 100.0
}
