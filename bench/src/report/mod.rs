//! The report: a JSON file, from which the Markdown and the plot are generated. No figure is written by hand.

mod document;
mod headline;
mod median;
mod plot;
mod ratios;
mod runs_table;
#[cfg(test)]
mod sample;
mod slow_commits;

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

pub use self::median::median;
use crate::fsync::Fsync;
use crate::load::Latency;
use crate::machine::Machine;
use crate::options::Plan;
use crate::process::Usage;
use crate::revision::Revision;

/// The connections of the new requests.
pub const LAYER_CONNECTIONS: u32 = 32;

/// The results of a run of the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub machine: Machine,
    pub plan: Plan,
    /// Duration of the run, in seconds.
    pub took_seconds: f64,
    /// Number of checks that were made. All of them passed, or there would be no report.
    pub checks: u64,
    pub fsync: Fsync,
    pub runs: Vec<Run>,
    pub reference_pools: Vec<ReferencePool>,
    pub table: Option<TableUnderLoad>,
    pub storms: Vec<Storm>,
    pub many_keys: Option<ManyKeys>,
    pub gateway: Vec<AddedLatency>,
    pub cleanup: Vec<Cleanup>,
    /// The wrapped handler's memory after each quarter of many requests.
    #[serde(default)]
    pub layer_memory_mib: Vec<f64>,
    // What reports of earlier versions do not have.
    #[serde(default)]
    pub two_phase_pools: Vec<ReferencePool>,
    /// The other revision of payonce.
    #[serde(default)]
    pub against: Option<Revision>,
    /// The address of the service that was running already.
    #[serde(default)]
    pub yardstick: Option<String>,
    #[serde(default)]
    pub slow_disk: Option<SlowDisk>,
    #[serde(default)]
    pub cleanup_beside: Vec<CleanupBeside>,
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// One variant, measured at a number of connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub series: Series,
    pub connections: u32,
    /// Counted from 1. Round 0 was shorter, and only found the best setting of a rival.
    pub round: u32,
    pub per_second: f64,
    /// Unknown for pgbench.
    pub latency: Option<Latency>,
    /// Answers other than 201.
    pub other_answers: u64,
    pub usage: Usage,
}

/// The measured variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Series {
    Payonce,
    PayonceAlone,
    Reference,
    Pgbench,
    HotKeys,
    OneKey,
    ColdKeys,
    Bare,
    SelectOne,
    EmptyTable,
    ManyKeys,
    Wrapped,
    Unwrapped,
    WrappedReplays,
    UnwrappedReads,
    TwoPhase,
    Against,
    Yardstick,
    StandbyPayonce,
    StandbyTwoPhase,
    SlowDiskPayonce,
    SlowDiskTwoPhase,
}

impl Series {
    pub fn label(self) -> &'static str {
        match self {
            Self::Payonce => "payonce",
            Self::PayonceAlone => "payonce, groups of one",
            Self::Reference => "reference handler",
            Self::Pgbench => "pgbench, two transactions",
            Self::HotKeys => "payonce, 1,000 hot keys",
            Self::OneKey => "payonce, one hot key",
            Self::ColdKeys => "payonce, keys not in memory",
            Self::Bare => "bare endpoint, same bytes",
            Self::SelectOne => "pgbench, select of one row",
            Self::EmptyTable => "payonce, empty tables",
            Self::ManyKeys => "payonce, many keys",
            Self::Wrapped => "handler wrapped by payonce-actix",
            Self::Unwrapped => "the same handler bare, a transaction of its own",
            Self::WrappedReplays => "wrapped, 1,000 hot keys",
            Self::UnwrappedReads => "bare, a read of the same 1,000 rows",
            Self::TwoPhase => "two-phase handler",
            Self::Against => "payonce, the other revision",
            Self::Yardstick => "the running service",
            Self::StandbyPayonce => "payonce, beside a standby",
            Self::StandbyTwoPhase => "two-phase handler, beside a standby",
            Self::SlowDiskPayonce => "payonce, slow disk",
            Self::SlowDiskTwoPhase => "two-phase handler, slow disk",
        }
    }
}

/// The pool that was best for a per-request handler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferencePool {
    pub connections: u32,
    pub pool: u32,
}

/// The effect of the fresh payments on payonce's tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableUnderLoad {
    pub keys: u64,
    pub keys_hot_percent: f64,
    pub payments_hot_percent: f64,
    /// Bytes per key, of `idempotency_keys` without its indexes and of its indexes.
    pub heap_bytes_per_key: f64,
    pub index_bytes_per_key: f64,
}

/// A thousand duplicates at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Storm {
    pub duplicates: u32,
    pub first_answer_ms: f64,
    pub last_after_first_ms: f64,
    pub gateway_calls: u64,
    /// Maximum number of connections to the database that was observed.
    pub database_connections: u64,
}

/// The large table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManyKeys {
    pub keys: u64,
    pub connections: u32,
    pub fill_seconds: f64,
    pub heap_gib: f64,
    pub indexes_gib: f64,
    pub memory_empty_mib: Option<f64>,
    pub memory_many_mib: Option<f64>,
}

/// The latency that payonce adds to the gateway's, in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddedLatency {
    pub gateway_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub payments: u64,
}

/// A round of clean-ups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cleanup {
    pub rows: u64,
    pub payonce_per_second: f64,
    pub plain_per_second: f64,
    /// Payments during it, and for the same time without it.
    pub with: Latency,
    pub without: Latency,
}

/// How the slow disk was made, and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowDisk {
    /// What a flush takes besides, in milliseconds.
    pub longer_ms: f64,
    pub fsync: Fsync,
    /// Of one connection to the server on it.
    pub commits_per_second: f64,
}

/// A round of the clean-up beside many payments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanupBeside {
    pub disk: Disk,
    /// The expired keys at its start.
    pub rows: u64,
    pub keys_per_second: f64,
    /// Of payments beside it, and as long without it.
    pub with: Latency,
    pub without: Latency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Disk {
    Machine,
    Slow,
}

impl Disk {
    pub fn label(self) -> &'static str {
        match self {
            Self::Machine => "the machine's disk",
            Self::Slow => "the slow disk",
        }
    }
}

/// What could not be measured on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    pub scenario: String,
    pub why: String,
}

impl Report {
    /// The measured runs of a series. If there are none, those that only looked for a setting.
    pub fn runs_of(&self, series: Series, connections: u32) -> Vec<&Run> {
        let all: Vec<&Run> = self
            .runs
            .iter()
            .filter(|run| run.series == series && run.connections == connections)
            .collect();
        let measured: Vec<&Run> = all.iter().copied().filter(|run| run.round > 0).collect();
        if measured.is_empty() { all } else { measured }
    }

    /// The connections at which a series was measured.
    pub fn connections_of(&self, series: Series) -> Vec<u32> {
        let runs = self.runs.iter().filter(|run| run.series == series);
        let mut found: Vec<u32> = runs.map(|run| run.connections).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The median of a series' rate.
    pub fn rate(&self, series: Series, connections: u32) -> Option<f64> {
        let runs = self.runs_of(series, connections);
        median(runs.iter().map(|run| run.per_second))
    }

    /// Writes it to the paths in the options.
    pub fn write(&self, json: &Path, markdown: &Path, plot: &Path) -> anyhow::Result<()> {
        for path in [json, markdown, plot] {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(json, text).with_context(|| format!("cannot write {}", json.display()))?;
        self.write_document(markdown, plot)
    }

    fn write_document(&self, markdown: &Path, plot: &Path) -> anyhow::Result<()> {
        plot::draw(self, plot).with_context(|| format!("cannot draw {}", plot.display()))?;
        let link = match (markdown.parent(), plot.parent()) {
            (Some(one), Some(other)) if one == other => plot.file_name().map(Path::new),
            _ => None,
        };
        let text = document::markdown(self, &link.unwrap_or(plot).display().to_string());
        std::fs::write(markdown, text)
            .with_context(|| format!("cannot write {}", markdown.display()))
    }
}

/// Generates the Markdown and the plot again from a report's JSON file.
pub fn render(json: &Path, markdown: &Path, plot: &Path) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(json).with_context(|| format!("cannot read {}", json.display()))?;
    let report: Report =
        serde_json::from_str(&text).with_context(|| format!("{} is no report", json.display()))?;
    report.write_document(markdown, plot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_rendered_anew_from_its_json() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let text = |name: &str| std::fs::read_to_string(path(name)).expect(name);
        let report = sample::report();
        report
            .write(&path("r.json"), &path("r.md"), &path("r.svg"))
            .expect("written");
        assert!(text("r.md").contains("](r.svg)"), "beside it");
        assert!(text("r.svg").contains("reference handler"));
        render(&path("r.json"), &path("again.md"), &path("r.svg")).expect("rendered");
        assert_eq!(text("again.md"), text("r.md"));
    }

    #[test]
    fn tries_count_only_where_nothing_else_was_measured() {
        let report = sample::report();
        let rounds = |clients| -> Vec<u32> {
            let runs = report.runs_of(Series::Pgbench, clients);
            runs.iter().map(|run| run.round).collect()
        };
        assert_eq!(rounds(8), [0]);
        assert_eq!(rounds(16), [1, 2, 3]);
        assert_eq!(report.connections_of(Series::Pgbench), [8, 16]);
    }
}
