//! New payments: payonce, payonce with groups of one, the reference handler and pgbench, in turns.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::Connection;

use crate::bench::{Bench, Site, count};
use crate::database::Database;
use crate::load::closed::Load;
use crate::pgbench::{self, Script};
use crate::process::Usage;
use crate::report::{ReferencePool, Report, Run, Series, TableUnderLoad};
use crate::rivals::CLAIM_AND_SETTLE;
use crate::server::{Address, Server};
use crate::store::{self, Updates};

/// The number of connections next to which pgbench is measured, so that both measurements are close in time.
const BESIDE_PGBENCH: u32 = 128;

/// PostgreSQL keeps a backend's counts to itself until it ends, or for some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A service that takes new payments, and its database.
struct Subject {
    series: Series,
    server: Server,
    site: Site,
}

impl Subject {
    async fn drive(&self, bench: &Bench, load: Load, round: u32) -> anyhow::Result<Run> {
        drive(
            bench,
            self.series,
            self.server.address(),
            &self.site,
            load,
            round,
        )
        .await
    }
}

async fn drive(
    bench: &Bench,
    series: Series,
    to: Address,
    site: &Site,
    load: Load,
    round: u32,
) -> anyhow::Result<Run> {
    let connections = load.connections;
    let name = series.label();
    bench
        .progress
        .step(&format!("{name}, {connections} connections, round {round}"));
    let driven = bench
        .drive_fresh(to, &site.database, &site.api_key, load)
        .await
        .context(name)?;
    let run = Run::of(series, connections, round, &driven);
    bench.progress.say(&format!(
        "{:.0}/s, p50 {:.1} ms, p99 {:.1} ms",
        run.per_second, driven.latency.p50_ms, driven.latency.p99_ms
    ));
    Ok(run)
}

pub async fn fresh(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let plan = &bench.plan;
    let steps = plan.connections.len() as u64 * 3 * u64::from(plan.rounds);
    bench.progress.expect(steps + u64::from(plan.rounds));
    let payonce = start_payonce(bench, Series::Payonce, "payonce", &[]).await?;
    let alone = [("PAYONCE_GROUP_SIZE", "1")];
    let alone = start_payonce(bench, Series::PayonceAlone, "alone", &alone).await?;
    let reference = References::start(bench, report).await?;
    let mut pgbench = Pgbench::start(bench, report).await?;
    for round in 1..=plan.rounds {
        for &connections in &plan.connections {
            let load = bench.load(connections);
            // Each round begins with another variant, so that none is always the first.
            for turn in 0..3 {
                let run = match (turn + round) % 3 {
                    1 => payonce.drive(bench, load.clone(), round).await?,
                    2 => alone.drive(bench, load.clone(), round).await?,
                    _ => reference.drive(bench, load.clone(), round).await?,
                };
                report.runs.push(run);
            }
            if connections == BESIDE_PGBENCH || plan.connections == [connections] {
                report.runs.push(pgbench.run(bench, round).await?);
            }
        }
    }
    let site = payonce.site.clone();
    payonce.server.stop().await?;
    report.table = Some(table_under_load(bench, &site.database).await?);
    drop((alone.server, reference.servers));
    for database in [
        site.database,
        alone.site.database,
        reference.site.database,
        pgbench.database,
    ] {
        bench.server.drop(&database).await?;
    }
    Ok(())
}

async fn start_payonce(
    bench: &Bench,
    series: Series,
    name: &str,
    settings: &[(&str, &str)],
) -> anyhow::Result<Subject> {
    let site = bench.site(name).await?;
    let server = bench.payonce(&site, settings).await?;
    Ok(Subject {
        series,
        server,
        site,
    })
}

/// The reference handler with each size of its pool. At each number of connections the best of them counts.
struct References {
    servers: Vec<(u32, Server)>,
    best: Vec<ReferencePool>,
    site: Site,
}

impl References {
    async fn start(bench: &Bench, report: &mut Report) -> anyhow::Result<Self> {
        let database = bench.rival_database("reference").await?;
        // It checks no API key, but gets the same bytes.
        let api_key = format!("sk_{}", "0".repeat(64));
        let site = Site { database, api_key };
        let mut servers = Vec::new();
        for &pool in &bench.plan.reference_pools {
            servers.push((pool, bench.reference(&site.database, pool).await?));
        }
        let mut references = Self {
            servers,
            best: Vec::new(),
            site,
        };
        for &connections in &bench.plan.connections {
            let pool = references.find_best(bench, connections).await?;
            references.best.push(ReferencePool { connections, pool });
        }
        report.reference_pools.clone_from(&references.best);
        Ok(references)
    }

    async fn find_best(&self, bench: &Bench, connections: u32) -> anyhow::Result<u32> {
        let mut best = (0, 0.0);
        // A larger pool than necessary is as good as one of the right size.
        let enough = self
            .servers
            .iter()
            .map(|(pool, _)| *pool)
            .find(|pool| *pool >= connections);
        for (pool, server) in &self.servers {
            if *pool > enough.unwrap_or(u32::MAX) {
                continue;
            }
            bench.progress.expect(1);
            let load = bench.short_load(connections);
            let to = server.address();
            let run = drive(bench, Series::Reference, to, &self.site, load, 0).await?;
            if run.per_second > best.1 {
                best = (*pool, run.per_second);
            }
        }
        Ok(best.0)
    }

    async fn drive(&self, bench: &Bench, load: Load, round: u32) -> anyhow::Result<Run> {
        let best = self
            .best
            .iter()
            .find(|best| best.connections == load.connections);
        let pool = best.context("no pool was tried")?.pool;
        let server = self.servers.iter().find(|(size, _)| *size == pool);
        let to = server.context("no such pool")?.1.address();
        drive(bench, Series::Reference, to, &self.site, load, round).await
    }
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
    let left = allowed.saturating_sub(pools + 2 * 20 + 10);
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
