//! Where a commit takes long: beside a standby, on the slow disk; and the clean-up beside many payments on both disks.

use std::fmt::Write;

use super::ratios::thousands;
use super::runs_table::runs_table;
use super::{Report, Series};
use crate::load::Latency;

/// Payments beside a synchronous standby.
pub fn standby(report: &Report) -> String {
    if report.connections_of(Series::StandbyPayonce).is_empty() {
        return String::new();
    }
    format!(
        "## Beside a synchronous standby\n\n{}\n\
         A second PostgreSQL server on the same machine and disk follows the first by streaming (`pg_basebackup`,\n\
         `synchronous_standby_names`), and each commit waits until the standby has flushed it. PostgreSQL's processor time is\n\
         that of both.",
        runs_table(report, &[Series::StandbyPayonce, Series::StandbyTwoPhase]),
    )
}

/// Payments on the slow disk, and how it was made.
pub fn slow_disk(report: &Report) -> String {
    let Some(disk) = &report.slow_disk else {
        return String::new();
    };
    let series = [Series::SlowDiskPayonce, Series::SlowDiskTwoPhase];
    let runs = match report.connections_of(series[0]).is_empty() {
        true => String::new(),
        false => runs_table(report, &series) + "\n",
    };
    format!(
        "## A disk that is slow to flush\n\n{runs}\
         A PostgreSQL server of its own, beside the other's data, whose every `fdatasync` and `fsync` takes {} ms longer: a library\n\
         that the run compiles from [`bench/src/slow_flush.c`](../bench/src/slow_flush.c) is loaded into it (`LD_PRELOAD`), flushes as\n\
         PostgreSQL asked, and then waits. Two flushes at once do not wait for each other. `pg_test_fsync` with the same library\n\
         flushes {} times a second by `{}`; one connection to the server commits {} times a second.",
        disk.longer_ms,
        disk.fsync
            .server_rate()
            .map_or("an unknown number of".to_owned(), |rate| thousands(
                rate.round() as u64
            )),
        disk.fsync.server_method,
        thousands(disk.commits_per_second.round() as u64),
    )
}

/// The clean-up's rate beside many payments.
pub fn cleanup_beside(report: &Report) -> String {
    let Some(first) = report.cleanup_beside.first() else {
        return String::new();
    };
    let rate = thousands(report.plan.busy_rate.into());
    let mut text = format!(
        "## Clean-up beside {rate} payments a second\n\n\
         `payonce-cleanup` as cron runs it, with {} expired keys before it, for {} s of {rate} payments a second; the same payments\n\
         before it began.\n\n\
         | disk | round | keys deleted a second | payments' p50, p99 ms with it | without |\n\
         | --- | ---: | ---: | --- | --- |\n",
        thousands(first.rows),
        report.plan.busy_duration.as_secs_f64(),
    );
    let waits = |waits: &Latency| format!("{:.1}, {:.1}", waits.p50_ms, waits.p99_ms);
    let mut before = None;
    let mut number = 0;
    for round in &report.cleanup_beside {
        number = if before == Some(round.disk) {
            number + 1
        } else {
            1
        };
        before = Some(round.disk);
        let _ = writeln!(
            text,
            "| {} | {number} | {} | {} | {} |",
            round.disk.label(),
            thousands(round.keys_per_second.round() as u64),
            waits(&round.with),
            waits(&round.without),
        );
    }
    text
}

/// What could not be measured.
pub fn skipped(report: &Report) -> String {
    let lines = report.skipped.iter();
    let lines: Vec<String> = lines
        .map(|skipped| format!("> **Not measured: {}: {}.**", skipped.scenario, skipped.why))
        .collect();
    lines.join("\n>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsync::Fsync;
    use crate::report::{CleanupBeside, Disk, Skipped, SlowDisk, sample};

    #[test]
    fn what_was_not_measured_has_no_section() {
        let report = sample::report();
        for section in [standby, slow_disk, cleanup_beside, skipped] {
            assert_eq!(section(&report), "");
        }
    }

    #[test]
    fn the_slow_disk_is_shown_with_its_rate() {
        let mut report = sample::report();
        report.slow_disk = Some(SlowDisk {
            longer_ms: 2.0,
            fsync: Fsync {
                methods: vec![("fdatasync".to_owned(), 466.4)],
                ..report.fsync.clone()
            },
            commits_per_second: 432.1,
        });
        let text = slow_disk(&report);
        assert!(text.contains("takes 2 ms longer"), "{text}");
        assert!(text.contains("flushes 466 times a second by `fdatasync`"));
        assert!(text.ends_with("commits 432 times a second."));
        assert!(!text.contains("| slow"), "no payments were measured");
    }

    #[test]
    fn rounds_are_counted_on_each_disk() {
        let mut report = sample::report();
        let waits = Latency {
            p50_ms: 1.0,
            p99_ms: 2.0,
            max_ms: 3.0,
        };
        for disk in [Disk::Machine, Disk::Machine, Disk::Slow] {
            report.cleanup_beside.push(CleanupBeside {
                disk,
                rows: 1_000_000,
                keys_per_second: 4321.0,
                with: waits,
                without: waits,
            });
        }
        let text = cleanup_beside(&report);
        for line in [
            "| the machine's disk | 2 | 4,321 | 1.0, 2.0 | 1.0, 2.0 |",
            "| the slow disk | 1 | 4,321 | 1.0, 2.0 | 1.0, 2.0 |",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn what_was_skipped_is_told() {
        let mut report = sample::report();
        report.skipped.push(Skipped {
            scenario: "slow-disk".to_owned(),
            why: "there is no C compiler (cc)".to_owned(),
        });
        let text = skipped(&report);
        assert_eq!(
            text,
            "> **Not measured: slow-disk: there is no C compiler (cc).**"
        );
    }
}
