//! A report for tests.

use clap::Parser;

use super::{Report, Run, Series, TableUnderLoad};
use crate::fsync::Fsync;
use crate::load::Latency;
use crate::machine::Machine;
use crate::options::Options;
use crate::process::Usage;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

/// New payments at 32 connections in three rounds, and pgbench.
pub fn report() -> Report {
    let unknown = || "unknown".to_owned();
    let cli = Cli::parse_from(["bench", "--database-url", "postgres://"]);
    let mut runs = Vec::new();
    for (round, ours, reference) in [(1, 9e3, 3e3), (2, 8e3, 4e3), (3, 10e3, 2e3)] {
        runs.push(run(Series::Payonce, 32, round, ours));
        runs.push(run(Series::Reference, 32, round, reference));
        runs.push(run(Series::Pgbench, 16, round, 5e3));
    }
    for clients in [8, 16] {
        runs.push(run(Series::Pgbench, clients, 0, 1e3));
    }
    // Of all rounds together.
    runs[0].other_answers = 2;
    Report {
        machine: Machine {
            cpu: unknown(),
            cores: 2,
            memory_gib: None,
            system: unknown(),
            postgresql: unknown(),
            shared_buffers: unknown(),
            max_wal_size: unknown(),
            commit: unknown(),
            date: unknown(),
        },
        plan: cli.options.plan(),
        took_seconds: 60.0,
        checks: 1,
        fsync: Fsync {
            server_method: "fdatasync".to_owned(),
            methods: vec![("fdatasync".to_owned(), 1000.0)],
            beside_the_data: true,
        },
        runs,
        reference_pools: Vec::new(),
        table: Some(TableUnderLoad {
            keys: 27_000,
            keys_hot_percent: 99.0,
            payments_hot_percent: 90.0,
            heap_bytes_per_key: 1000.0,
            index_bytes_per_key: 100.0,
        }),
        storms: Vec::new(),
        many_keys: None,
        gateway: Vec::new(),
        cleanup: Vec::new(),
        layer_memory_mib: Vec::new(),
        two_phase_pools: Vec::new(),
        against: None,
        yardstick: None,
        slow_disk: None,
        cleanup_beside: Vec::new(),
        skipped: Vec::new(),
    }
}

fn run(series: Series, connections: u32, round: u32, per_second: f64) -> Run {
    Run {
        series,
        connections,
        round,
        per_second,
        latency: Some(Latency {
            p50_ms: 1.5,
            p99_ms: 3.0,
            max_ms: 4.0,
        }),
        other_answers: 0,
        usage: Usage::default(),
    }
}
