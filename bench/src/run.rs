//! One run of the benchmark: the scenarios one after the other, then the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::Bench;
use crate::database::DatabaseServer;
use crate::machine::Machine;
use crate::options::{Options, Plan, Scenario};
use crate::programs::Programs;
use crate::progress::Progress;
use crate::report::Report;
use crate::scenarios::Others;
use crate::{fsync, scenarios};

/// Runs everything and writes the report.
pub fn run(options: Options) -> anyhow::Result<()> {
    allow_many_connections()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let bench = Bench {
            plan: options.plan(),
            server: Arc::new(DatabaseServer::open(&options.database_url).await?),
            programs: Programs::find(&options)?,
            checks: Arc::default(),
            progress: Arc::new(Progress::new()),
        };
        let result = tokio::select! {
            report = measure(&bench, &options) => report,
            stopped = told_to_stop() => stopped.and(Err(anyhow::anyhow!("interrupted"))),
        };
        bench.progress.finish();
        let dropped = bench.server.drop_all().await;
        let report = result?;
        dropped.context("cannot drop the benchmark's databases")?;
        let [json, markdown, plot] = destinations(&options, &bench.plan);
        report.write(&json, &markdown, &plot)?;
        println!("{}", markdown.display());
        Ok(())
    })
}

/// The program's services and databases must not outlive it.
async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}

/// A quick or partial run does not replace the real one's report.
fn destinations(options: &Options, plan: &Plan) -> [PathBuf; 3] {
    let is_whole = !plan.quick && options.only.is_empty();
    let folder = Path::new(if is_whole { "docs" } else { "target/bench" });
    let given = |path: &Option<PathBuf>, name: &str| path.clone().unwrap_or(folder.join(name));
    [
        given(&options.json, "benchmarks.json"),
        given(&options.markdown, "BENCHMARKS.md"),
        given(&options.plot, "benchmarks.svg"),
    ]
}

/// A storm has a thousand connections, each with a descriptor on both sides. Child processes inherit the limit.
fn allow_many_connections() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")
}

async fn measure(bench: &Bench, options: &Options) -> anyhow::Result<Report> {
    let others = Others::open(bench, options).await?;
    let started = Instant::now();
    bench.progress.expect(1);
    bench.progress.step("pg_test_fsync");
    let mut report = Report {
        machine: Machine::describe(&bench.server.settings),
        plan: bench.plan.clone(),
        took_seconds: 0.0,
        checks: 0,
        fsync: fsync::measure(&bench.server, &bench.programs).await?,
        runs: Vec::new(),
        reference_pools: Vec::new(),
        table: None,
        storms: Vec::new(),
        many_keys: None,
        gateway: Vec::new(),
        cleanup: Vec::new(),
        layer_memory_mib: Vec::new(),
        two_phase_pools: Vec::new(),
        against: others.revision.clone().map(|(revision, _)| revision),
        yardstick: options.yardstick.clone(),
        slow_disk: None,
        cleanup_beside: Vec::new(),
        skipped: Vec::new(),
    };
    for scenario in &bench.plan.scenarios {
        match scenario {
            Scenario::Fresh => scenarios::fresh(bench, &others, &mut report).await,
            Scenario::Replays => scenarios::replays(bench, &mut report).await,
            Scenario::Storm => scenarios::storm(bench, &mut report).await,
            Scenario::ManyKeys => scenarios::many_keys(bench, &mut report).await,
            Scenario::Latency => scenarios::latency(bench, &mut report).await,
            Scenario::Cleanup => scenarios::cleanup(bench, &mut report).await,
            Scenario::Layer => scenarios::layer(bench, &mut report).await,
            Scenario::Standby => scenarios::standby(bench, &mut report).await,
            Scenario::SlowDisk => scenarios::slow_disk(bench, &mut report).await,
            Scenario::CleanupBeside => scenarios::cleanup_beside(bench, &mut report).await,
        }
        .with_context(|| format!("{scenario:?}"))?;
    }
    report.checks = bench.checks.made();
    report.took_seconds = started.elapsed().as_secs_f64();
    Ok(report)
}
