//! The options: what is measured, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

/// The options of `payonce-bench run`. Where no default is shown, it depends on `--quick`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// A PostgreSQL server on which databases may be created, as postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: String,
    /// The folder of payonce and payonce-cleanup [default: this program's own].
    #[arg(long, value_name = "FOLDER")]
    pub programs: Option<PathBuf>,
    /// The folder of pgbench and pg_test_fsync [default: PATH, then the usual places].
    #[arg(long, env = "PAYONCE_POSTGRES_BIN", value_name = "FOLDER")]
    pub postgres_bin: Option<PathBuf>,
    /// A smoke of a few minutes: short, one round, few keys. Its figures say nothing.
    #[arg(long)]
    pub quick: bool,
    /// Measure only these.
    #[arg(long, value_enum, value_name = "SCENARIO", num_args = 1.., value_delimiter = ',')]
    pub only: Vec<Scenario>,
    /// Number of rounds, in each of which every variant is measured; medians are reported [default: 3].
    #[arg(long, value_name = "COUNT", value_parser = RangedU64ValueParser::<u32>::new().range(1..=99))]
    pub rounds: Option<u32>,
    /// How long each is measured [default: 5s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// How long each runs before it is measured [default: 1s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub warm_up: Option<Duration>,
    /// Numbers of connections at which fresh payments are measured [default: 1,32,128,512].
    #[arg(long, value_name = "COUNT", value_delimiter = ',')]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=8192))]
    pub connections: Vec<u32>,
    /// The connections of the replays.
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=8192))]
    pub replay_connections: u32,
    /// The per-request handlers' database pools, of which the best counts.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [20, 60])]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    pub reference_pools: Vec<u32>,
    /// The two-phase handler's database pools beside a standby and on the slow disk, of which the best counts.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [60, 120])]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    pub slow_commit_pools: Vec<u32>,
    /// Another revision of payonce, for the fresh payments: it is checked out below target/bench and built.
    #[arg(long, value_name = "REVISION")]
    pub against: Option<String>,
    /// A service that is running, for the fresh payments: it takes the same POST, as http://host:port/path.
    #[arg(long, value_name = "URL", requires = "yardstick_database")]
    pub yardstick: Option<String>,
    /// Where it keeps its keys and payments, which are counted.
    #[arg(long, value_name = "URL", requires = "yardstick")]
    pub yardstick_database: Option<String>,
    /// pgbench's clients, of which the best counts.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_values_t = [8, 16, 32, 64])]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000))]
    pub pgbench_clients: Vec<u32>,
    /// Number of keys of the large table; ten million and their payments need 42 GiB of disk [default: 10000000].
    #[arg(long, value_name = "COUNT")]
    pub many_keys: Option<u64>,
    /// Number of keys that the clean-up deletes [default: 1000000].
    #[arg(long, value_name = "COUNT")]
    pub expired_keys: Option<u64>,
    /// The requests over which the wrapped handler's memory is looked at [default: 1000000].
    #[arg(long, value_name = "COUNT", value_parser = RangedU64ValueParser::<u64>::new().range(4..))]
    pub layer_requests: Option<u64>,
    /// The generator's threads.
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    #[arg(value_parser = RangedU64ValueParser::<u16>::new().range(1..=64))]
    pub threads: u16,
    /// Path of the report as JSON [default: docs/benchmarks.json; target/bench/ with --quick or --only].
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Path of the report as Markdown [default: docs/BENCHMARKS.md].
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Path of the plot [default: docs/benchmarks.svg].
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be more than zero".to_owned()),
        Ok(duration) if duration > Duration::from_secs(3600) => Err("at most an hour".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// A scenario, which can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// New payments: payonce, payonce without groups, the handlers in one phase and in two, pgbench.
    Fresh,
    /// Repeated requests: hot keys, one key, keys that are not in memory.
    Replays,
    /// 1,000 duplicates at once over a slow gateway.
    Storm,
    /// New payments on an empty table and on one with many keys.
    ManyKeys,
    /// The latency that payonce adds to a gateway's 100 ms.
    Latency,
    /// The clean-up, and payments during it.
    Cleanup,
    /// An actix handler wrapped in one line, beside the same one bare.
    Layer,
    /// New payments whose commits wait for a standby: payonce, the handler in two phases.
    Standby,
    /// New payments on a disk that takes 2 ms for a flush: payonce, the handler in two phases.
    SlowDisk,
    /// The clean-up beside 1,000 payments a second, on both disks.
    CleanupBeside,
}

/// The options with every default filled in, as the report shows them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub quick: bool,
    pub scenarios: Vec<Scenario>,
    pub rounds: u32,
    #[serde(with = "seconds")]
    pub duration: Duration,
    #[serde(with = "seconds")]
    pub warm_up: Duration,
    pub connections: Vec<u32>,
    pub replay_connections: u32,
    pub reference_pools: Vec<u32>,
    #[serde(default)]
    pub slow_commit_pools: Vec<u32>,
    pub pgbench_clients: Vec<u32>,
    pub many_keys: u64,
    /// Keys that payonce finds only in the table. None is requested twice.
    pub cold_keys: u64,
    pub expired_keys: u64,
    /// None in reports of before there was such a measure.
    #[serde(default)]
    pub layer_requests: u64,
    pub storms: u32,
    /// Payments per second of the open loops.
    pub steady_rate: u32,
    /// Duration of an open loop with the slow gateway.
    #[serde(with = "seconds")]
    pub steady_duration: Duration,
    /// Payments a second beside the clean-up whose rate is measured, and for how long.
    #[serde(default)]
    pub busy_rate: u32,
    #[serde(default, with = "seconds")]
    pub busy_duration: Duration,
    pub threads: u16,
}

impl Options {
    pub fn plan(&self) -> Plan {
        let quick = self.quick;
        let seconds = Duration::from_secs;
        Plan {
            quick,
            scenarios: match &self.only[..] {
                [] => Scenario::value_variants().to_vec(),
                only => only.to_vec(),
            },
            rounds: self.rounds.unwrap_or(if quick { 1 } else { 3 }),
            duration: self.duration.unwrap_or(seconds(if quick { 1 } else { 5 })),
            warm_up: self.warm_up.unwrap_or(if quick {
                Duration::from_millis(300)
            } else {
                seconds(1)
            }),
            connections: match &self.connections[..] {
                [] => vec![1, 32, 128, 512],
                given => given.to_vec(),
            },
            replay_connections: self.replay_connections,
            reference_pools: self.reference_pools.clone(),
            slow_commit_pools: self.slow_commit_pools.clone(),
            pgbench_clients: self.pgbench_clients.clone(),
            many_keys: self
                .many_keys
                .unwrap_or(if quick { 100_000 } else { 10_000_000 }),
            cold_keys: if quick { 60_000 } else { 600_000 },
            expired_keys: self
                .expired_keys
                .unwrap_or(if quick { 100_000 } else { 1_000_000 }),
            layer_requests: self
                .layer_requests
                .unwrap_or(if quick { 20_000 } else { 1_000_000 }),
            storms: if quick { 1 } else { 5 },
            steady_rate: 200,
            steady_duration: seconds(if quick { 3 } else { 15 }),
            busy_rate: 1000,
            busy_duration: seconds(if quick { 2 } else { 10 }),
            threads: self.threads,
        }
    }
}

/// Durations in the report are seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}
