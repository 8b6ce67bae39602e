//! `payonce-cleanup`, which cron runs to delete expired idempotency keys.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use super::{examples, exit, output, usage};
use crate::config::{DatabaseArgs, positive_duration};
use crate::idempotency::{Cleaner, CleanupLimits, CleanupReport};

const PROGRAM: &str = "payonce-cleanup";

/// Deletes expired idempotency keys, oldest first, in short transactions. It never deletes one that is still PROCESSING.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = examples::CLEANUP)]
pub(super) struct CleanupCli {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Maximum number of keys that one transaction deletes.
    #[arg(long, value_name = "KEYS", default_value_t = CleanupLimits::default().batch_size)]
    #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=100_000))]
    batch_size: u32,
    /// No transaction is started after this time.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = positive_duration)]
    max_duration: Duration,
    /// Delete nothing; count what would be deleted.
    #[arg(long)]
    dry_run: bool,
    /// Write the result for Prometheus's textfile collector.
    #[arg(long, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

/// Runs `payonce-cleanup` with the process's arguments.
pub async fn run() -> ExitCode {
    match usage::parse::<CleanupCli>() {
        Ok(cli) => exit::conclude(PROGRAM, cli.run().await.map(|()| ExitCode::SUCCESS)),
        Err(status) => status,
    }
}

impl CleanupCli {
    async fn run(self) -> anyhow::Result<()> {
        let cleaner = Cleaner::new(super::open(&self.database).await?);
        let report = if self.dry_run {
            count(&cleaner).await?
        } else {
            self.clean(&cleaner).await?
        };
        // Before the output, which fails if its reader is gone.
        if let Some(path) = &self.metrics_file
            && !report.another_is_running
        {
            let succeeded_at = (!self.dry_run).then(Utc::now);
            write_atomically(path, &metrics(&report, succeeded_at))
                .with_context(|| format!("cannot write --metrics-file {}", path.display()))?;
        }
        let keeping_up = (!self.dry_run && !report.another_is_running).then_some(report.keeps_up);
        if keeping_up == Some(false) {
            exit::complain(
                PROGRAM,
                "keys expire faster than they are deleted: run it more often, or with a longer --max-duration",
            );
        }
        output::print_json(&Printed::new(&report, keeping_up))
    }

    async fn clean(&self, cleaner: &Cleaner) -> anyhow::Result<CleanupReport> {
        let limits = CleanupLimits {
            batch_size: self.batch_size,
            max_duration: self.max_duration,
        };
        let report = cleaner.run(limits).await?;
        if report.another_is_running {
            exit::complain(
                PROGRAM,
                "another clean-up is in progress; nothing is left to do for this one",
            );
        }
        Ok(report)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    deleted: u64,
    batches: u64,
    remaining: u64,
    duration_ms: u64,
    /// `None` if it deleted nothing on purpose: by `--dry-run`, or because another clean-up was in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    keeping_up: Option<bool>,
}

impl Printed {
    fn new(report: &CleanupReport, keeping_up: Option<bool>) -> Self {
        Self {
            deleted: report.deleted,
            batches: report.batches,
            remaining: report.remaining,
            duration_ms: u64::try_from(report.duration.as_millis()).unwrap_or(u64::MAX),
            keeping_up,
        }
    }
}

async fn count(cleaner: &Cleaner) -> anyhow::Result<CleanupReport> {
    let started = Instant::now();
    let remaining = cleaner.count_expired().await?;
    Ok(CleanupReport {
        remaining,
        duration: started.elapsed(),
        ..CleanupReport::default()
    })
}

/// The report in Prometheus's text format. `succeeded_at` is set if keys were deleted, and not only counted.
fn metrics(report: &CleanupReport, succeeded_at: Option<DateTime<Utc>>) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: &dyn std::fmt::Display| {
        let name = format!("payonce_cleanup_{name}");
        text += &format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    };
    gauge(
        "deleted",
        "Idempotency keys that the last run deleted.",
        &report.deleted,
    );
    gauge(
        "batches",
        "Transactions that the last run deleted them in.",
        &report.batches,
    );
    gauge(
        "remaining",
        "Expired idempotency keys left after the last run.",
        &report.remaining,
    );
    gauge(
        "duration_seconds",
        "How long the last run took.",
        &report.duration.as_secs_f64(),
    );
    if let Some(time) = succeeded_at {
        gauge(
            "keeping_up",
            "1 if the last run deleted all expired keys, 0 if its time was over before.",
            &u8::from(report.keeps_up),
        );
        let help = "When the last successful run ended, in seconds since 1970.";
        gauge("last_success_timestamp_seconds", help, &time.timestamp());
    }
    text
}

/// Replaces a file atomically: a collector that reads it at that moment sees the old one or the new one.
fn write_atomically(path: &Path, text: &str) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = File::create(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Report the first error.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// A temporary name in the same folder, because a rename does not work across file systems. It does not end in `.prom`, so collectors
/// ignore it.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: CleanupReport = CleanupReport {
        deleted: 12,
        batches: 3,
        remaining: 4,
        duration: Duration::from_millis(1500),
        another_is_running: false,
        keeps_up: true,
    };

    #[test]
    fn metrics_are_in_the_text_format() {
        let text = metrics(&REPORT, DateTime::from_timestamp(1_700_000_000, 0));
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "payonce_cleanup_deleted 12",
                "payonce_cleanup_batches 3",
                "payonce_cleanup_remaining 4",
                "payonce_cleanup_duration_seconds 1.5",
                "payonce_cleanup_keeping_up 1",
                "payonce_cleanup_last_success_timestamp_seconds 1700000000",
            ]
        );
        assert!(text.starts_with(
            "# HELP payonce_cleanup_deleted Idempotency keys that the last run deleted.\n\
             # TYPE payonce_cleanup_deleted gauge\n"
        ));
    }

    #[test]
    fn a_dry_run_is_no_success_to_tell_of() {
        let text = metrics(&REPORT, None);
        assert!(!text.contains("last_success") && !text.contains("keeping_up"));
    }

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("payonce.prom");
        for text in ["old", "new"] {
            write_atomically(&path, text).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
        }
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_and_stays_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(write_atomically(&folder.path().join("absent/f.prom"), "text").is_err());
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0);
    }
}
