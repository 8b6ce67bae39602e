//! payonce's targets and results, as ratios within one run, because a slow machine is slow for both sides.

use super::{Disk, Report, Run, Series, median};
use crate::load::Latency;
use crate::report::LAYER_CONNECTIONS;

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    pub measure: String,
    pub required: Bound,
    /// The median of the rounds.
    pub reached: f64,
    /// The values of the rounds, in their order.
    pub rounds: Vec<f64>,
}

/// The bound of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At least this multiple of the other.
    AtLeast(f64),
    /// At most this multiple of the other.
    AtMost(f64),
    /// At most this many milliseconds.
    WithinMs(f64),
    /// At most this many microseconds.
    WithinUs(f64),
    /// At most this many MiB.
    WithinMib(f64),
    /// At least this many percent.
    PercentAtLeast(f64),
    /// At least this many a second.
    PerSecondAtLeast(f64),
}

impl Ratio {
    pub fn holds(&self) -> bool {
        match self.required {
            Bound::AtLeast(bound)
            | Bound::PercentAtLeast(bound)
            | Bound::PerSecondAtLeast(bound) => self.reached >= bound,
            Bound::AtMost(bound)
            | Bound::WithinMs(bound)
            | Bound::WithinUs(bound)
            | Bound::WithinMib(bound) => self.reached <= bound,
        }
    }
}

impl Bound {
    /// The bound itself.
    pub fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound} ×"),
            Self::AtMost(bound) => format!("≤ {bound} ×"),
            Self::WithinMs(bound) => format!("≤ {bound} ms"),
            Self::WithinUs(bound) => format!("≤ {bound} µs"),
            Self::WithinMib(bound) => format!("≤ {bound} MiB"),
            Self::PercentAtLeast(bound) => format!("≥ {bound} %"),
            Self::PerSecondAtLeast(bound) => format!("≥ {} a second", thousands(bound as u64)),
        }
    }

    /// A value in the bound's unit.
    pub fn value(self, value: f64) -> String {
        match self {
            Self::AtLeast(_) | Self::AtMost(_) => format!("{value:.2} ×"),
            Self::WithinMs(_) => format!("{value:.1} ms"),
            Self::WithinUs(_) => format!("{value:.0} µs"),
            Self::WithinMib(_) => format!("{value:.0} MiB"),
            Self::PercentAtLeast(_) => format!("{value:.1} %"),
            Self::PerSecondAtLeast(_) => format!("{} a second", thousands(value.round() as u64)),
        }
    }
}

/// All lines whose scenario was measured.
pub fn all(report: &Report) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    ratios.extend(against(report));
    ratios.extend(fresh(report));
    ratios.extend(slow_commits(report));
    ratios.extend(replays(report));
    ratios.extend(storm(report));
    ratios.extend(gateway(report));
    ratios.extend(cleanup(report));
    ratios.extend(memory(report));
    ratios.extend(table(report));
    ratios.extend(many_keys(report));
    ratios.extend(layer(report));
    ratios
}

/// Over the other revision, and what both take of the processor.
fn against(report: &Report) -> Vec<Ratio> {
    let commit = report
        .against
        .as_ref()
        .map_or("another revision", |revision| &*revision.commit);
    let mut ratios = Vec::new();
    for (connections, times) in [(32, 1.3), (128, 1.6), (512, 1.6)] {
        ratios.extend(of_rates(
            report,
            format!("new payments, {connections} connections, over payonce at {commit}"),
            Bound::AtLeast(times),
            (Series::Payonce, connections),
            (Series::Against, connections),
        ));
    }
    ratios.extend(of_runs(
        report,
        format!(
            "processor time a payment of service and PostgreSQL, 128 connections, over {commit}"
        ),
        Bound::AtMost(0.65),
        (Series::Payonce, 128),
        (Series::Against, 128),
        |run| run.usage.service_and_postgres_us(),
    ));
    let times = report.runs_of(Series::Payonce, 128);
    let times = times
        .iter()
        .filter_map(|run| run.usage.all_but_generator_us());
    ratios.extend(of_rounds(
        "processor time a payment of everything but the generator, 128 connections".to_owned(),
        Bound::WithinUs(110.0),
        times.collect(),
    ));
    ratios
}

/// New payments over what else could be picked.
fn fresh(report: &Report) -> Vec<Ratio> {
    let pgbench = best_connections(report, Series::Pgbench);
    let two_phase = "the per-request handler in two phases";
    let one_phase = "the reference handler in one phase";
    let yardstick = report.yardstick.as_deref().unwrap_or("a running service");
    let rows = [
        (128, 4.0, two_phase, Series::TwoPhase, 128),
        (512, 5.0, two_phase, Series::TwoPhase, 512),
        (32, 1.5, one_phase, Series::Reference, 32),
        (128, 2.7, one_phase, Series::Reference, 128),
        (512, 3.0, one_phase, Series::Reference, 512),
        (
            128,
            3.0,
            "pgbench's two transactions at its best",
            Series::Pgbench,
            pgbench,
        ),
        (128, 0.85, yardstick, Series::Yardstick, 128),
        (512, 0.85, yardstick, Series::Yardstick, 512),
        (
            1,
            0.6,
            "the reference handler in one phase",
            Series::Reference,
            1,
        ),
    ];
    rows.into_iter()
        .filter_map(|(connections, times, other, series, theirs)| {
            let noun = if connections == 1 {
                "connection"
            } else {
                "connections"
            };
            of_rates(
                report,
                format!("new payments, {connections} {noun}, over {other}"),
                Bound::AtLeast(times),
                (Series::Payonce, connections),
                (series, theirs),
            )
        })
        .collect()
}

/// Where a commit takes long.
fn slow_commits(report: &Report) -> Vec<Ratio> {
    let standby = (Series::StandbyPayonce, Series::StandbyTwoPhase);
    let disk = (Series::SlowDiskPayonce, Series::SlowDiskTwoPhase);
    [
        ("beside a synchronous standby", standby),
        ("on the slow disk", disk),
    ]
    .into_iter()
    .filter_map(|(place, (ours, other))| {
        of_rates(
            report,
            format!("new payments {place}, 128 connections, over the two-phase handler"),
            Bound::AtLeast(5.0),
            (ours, 128),
            (other, 128),
        )
    })
    .collect()
}

fn replays(report: &Report) -> Vec<Ratio> {
    let connections = report.plan.replay_connections;
    let best = best_connections(report, Series::SelectOne);
    let hot = "replays of 1,000 hot keys over the bare endpoint";
    let cold = "replays of keys not in memory over pgbench's select of one row at its best";
    [
        (hot, 0.65, Series::HotKeys, (Series::Bare, connections)),
        (cold, 0.4, Series::ColdKeys, (Series::SelectOne, best)),
    ]
    .into_iter()
    .filter_map(|(measure, times, ours, other)| {
        let bound = Bound::AtLeast(times);
        of_rates(
            report,
            measure.to_owned(),
            bound,
            (ours, connections),
            other,
        )
    })
    .collect()
}

fn many_keys(report: &Report) -> Option<Ratio> {
    let many = report.many_keys.as_ref()?;
    of_rates(
        report,
        format!(
            "new payments beside {} keys over empty tables",
            thousands(many.keys)
        ),
        Bound::AtLeast(0.95),
        (Series::ManyKeys, many.connections),
        (Series::EmptyTable, many.connections),
    )
}

/// The most that was seen counts, not the median.
fn memory(report: &Report) -> Option<Ratio> {
    let runs = report.runs_of(Series::Payonce, 512);
    let rounds: Vec<f64> = runs.iter().filter_map(|run| run.usage.memory_mib).collect();
    Some(Ratio {
        measure: "memory at 512 connections, the most".to_owned(),
        required: Bound::WithinMib(180.0),
        reached: rounds.iter().copied().reduce(f64::max)?,
        rounds,
    })
}

/// Payments a second over the other's.
fn of_rates(
    report: &Report,
    measure: String,
    required: Bound,
    ours: (Series, u32),
    other: (Series, u32),
) -> Option<Ratio> {
    let rate = |run: &Run| Some(run.per_second);
    of_runs(report, measure, required, ours, other, rate)
}

/// Round by round: what was measured next to each other is compared.
fn of_runs(
    report: &Report,
    measure: String,
    required: Bound,
    ours: (Series, u32),
    other: (Series, u32),
    value: fn(&Run) -> Option<f64>,
) -> Option<Ratio> {
    let (ours, other) = (
        report.runs_of(ours.0, ours.1),
        report.runs_of(other.0, other.1),
    );
    let rounds: Vec<f64> = ours
        .iter()
        .filter_map(|run| {
            let beside = other.iter().find(|other| other.round == run.round)?;
            Some(value(run)? / value(beside)?)
        })
        .collect();
    of_rounds(measure, required, rounds)
}

fn of_rounds(measure: String, required: Bound, rounds: Vec<f64>) -> Option<Ratio> {
    Some(Ratio {
        reached: median(rounds.iter().copied())?,
        measure,
        required,
        rounds,
    })
}

/// The number of clients at which a series was measured in the rounds, after several were tried.
fn best_connections(report: &Report, series: Series) -> u32 {
    let mut runs = report.runs.iter();
    let best = runs.find(|run| run.series == series && run.round > 0);
    best.map_or(0, |run| run.connections)
}

/// The worst storm counts, not the median.
fn storm(report: &Report) -> Option<Ratio> {
    let rounds: Vec<f64> = report
        .storms
        .iter()
        .map(|storm| storm.last_after_first_ms)
        .collect();
    Some(Ratio {
        measure: "1,000 duplicates: last answer after the first execution's, the worst storm"
            .to_owned(),
        required: Bound::WithinMs(100.0),
        reached: rounds.iter().copied().reduce(f64::max)?,
        rounds,
    })
}

fn gateway(report: &Report) -> Vec<Ratio> {
    let p50s = report.gateway.iter().map(|added| added.p50_ms).collect();
    let p99s = report.gateway.iter().map(|added| added.p99_ms).collect();
    let measure =
        |quantile| format!("added to the gateway's 100 ms at 200 payments a second, {quantile}");
    [
        of_rounds(measure("p50"), Bound::WithinMs(5.0), p50s),
        of_rounds(measure("p99"), Bound::WithinMs(20.0), p99s),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn table(report: &Report) -> Vec<Ratio> {
    let Some(table) = &report.table else {
        return Vec::new();
    };
    [
        ("`idempotency_keys`", table.keys_hot_percent),
        ("`payments`", table.payments_hot_percent),
    ]
    .into_iter()
    .filter_map(|(name, percent)| {
        let measure = format!("HOT updates of {name}");
        of_rounds(measure, Bound::PercentAtLeast(95.0), vec![percent])
    })
    .collect()
}

fn cleanup(report: &Report) -> Vec<Ratio> {
    let p99 = |with: &Latency, without: &Latency| with.p99_ms / without.p99_ms;
    let rounds = report.cleanup.iter();
    let rates = rounds
        .clone()
        .map(|round| round.payonce_per_second / round.plain_per_second);
    let mut ratios = vec![of_rounds(
        "clean-up over a plain DELETE".to_owned(),
        Bound::AtLeast(0.85),
        rates.collect(),
    )];
    let beside = |disk| {
        let rounds = report.cleanup_beside.iter();
        rounds.filter(move |round| round.disk == disk)
    };
    let busy = thousands(report.plan.busy_rate.into());
    ratios.push(of_rounds(
        format!("clean-up beside {busy} payments a second on the slow disk"),
        Bound::PerSecondAtLeast(2000.0),
        beside(Disk::Slow)
            .map(|round| round.keys_per_second)
            .collect(),
    ));
    let steady = report.plan.steady_rate;
    ratios.push(of_rounds(
        format!("p99 of {steady} payments a second beside the clean-up over without it"),
        Bound::AtMost(1.5),
        rounds
            .map(|round| p99(&round.with, &round.without))
            .collect(),
    ));
    for disk in [Disk::Machine, Disk::Slow] {
        ratios.push(of_rounds(
            format!(
                "p99 of {busy} payments a second beside the clean-up over without it, {}",
                disk.label()
            ),
            Bound::AtMost(1.5),
            beside(disk)
                .map(|round| p99(&round.with, &round.without))
                .collect(),
        ));
    }
    ratios.into_iter().flatten().collect()
}

fn layer(report: &Report) -> Vec<Ratio> {
    let (connections, replays) = (LAYER_CONNECTIONS, report.plan.replay_connections);
    let memory = match report.layer_memory_mib[..] {
        [first, .., last] => vec![last / first],
        _ => Vec::new(),
    };
    let requests = thousands(report.plan.layer_requests);
    [
        of_rates(
            report,
            format!("a handler wrapped in one line over the same bare, {connections} connections"),
            Bound::AtLeast(0.7),
            (Series::Wrapped, connections),
            (Series::Unwrapped, connections),
        ),
        of_rates(
            report,
            "replays of the wrapped handler over the bare one's read of the same row".to_owned(),
            Bound::AtLeast(0.6),
            (Series::WrappedReplays, replays),
            (Series::UnwrappedReads, replays),
        ),
        of_rounds(
            format!(
                "memory of the wrapped handler after {requests} requests over a quarter of them"
            ),
            Bound::AtMost(1.1),
            memory,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Usage;
    use crate::report::CleanupBeside;

    #[test]
    fn a_bound_holds_up_to_itself() {
        let ratio = |required, reached| Ratio {
            measure: String::new(),
            required,
            reached,
            rounds: Vec::new(),
        };
        for (required, good, bad) in [
            (Bound::AtLeast(2.0), 2.0, 1.99),
            (Bound::AtMost(1.5), 1.5, 1.51),
            (Bound::WithinMs(100.0), 100.0, 100.1),
            (Bound::WithinUs(110.0), 110.0, 110.1),
            (Bound::WithinMib(180.0), 180.0, 180.1),
            (Bound::PercentAtLeast(95.0), 95.0, 94.9),
            (Bound::PerSecondAtLeast(2000.0), 2000.0, 1999.0),
        ] {
            assert!(ratio(required, good).holds(), "{required:?}");
            assert!(!ratio(required, bad).holds(), "{required:?}");
        }
    }

    /// Three rounds of payonce at 100 µs, and of another revision at 200, 250 and 100.
    fn with_processor_times() -> Report {
        let mut report = crate::report::sample::report();
        report.runs.clear();
        for (round, other_us) in [(1, 200.0), (2, 250.0), (3, 100.0)] {
            for (series, service_us, memory) in [
                (Series::Payonce, 60.0, 170.0 + f64::from(round)),
                (Series::Against, other_us - 40.0, 300.0),
            ] {
                for connections in [128, 512] {
                    report.runs.push(Run {
                        series,
                        connections,
                        round,
                        per_second: 1e6 / (service_us + 40.0),
                        latency: None,
                        other_answers: 0,
                        usage: Usage {
                            service_us: Some(service_us),
                            postgres_us: Some(40.0),
                            others_us: Some(15.0),
                            memory_mib: Some(memory),
                            ..Usage::default()
                        },
                    });
                }
            }
        }
        report
    }

    fn found(report: &Report, start: &str) -> Ratio {
        let mut ratios = all(report).into_iter();
        let ratio = ratios.find(|ratio| ratio.measure.starts_with(start));
        ratio.unwrap_or_else(|| panic!("{start}"))
    }

    #[test]
    fn another_revision_is_compared_round_by_round() {
        let report = with_processor_times();
        let rate = found(&report, "new payments, 128 connections, over payonce at");
        assert_eq!(rate.rounds, [2.0, 2.5, 1.0]);
        assert!(rate.holds());
        let ratio = found(
            &report,
            "processor time a payment of service and PostgreSQL",
        );
        assert_eq!(ratio.rounds, [0.5, 0.4, 1.0]);
        assert_eq!((ratio.reached, ratio.holds()), (0.5, true));
        // What the kernel takes counts here as well.
        let time = found(&report, "processor time a payment of everything");
        assert_eq!((time.reached, time.holds()), (115.0, false));
        let memory = found(&report, "memory at 512");
        assert_eq!((memory.reached, memory.holds()), (173.0, true));
    }

    #[test]
    fn the_clean_up_is_judged_on_each_disk_by_itself() {
        let mut report = crate::report::sample::report();
        let waits = |p99_ms| Latency {
            p50_ms: 1.0,
            p99_ms,
            max_ms: 9.0,
        };
        for (disk, keys_per_second, p99_ms) in
            [(Disk::Machine, 9000.0, 3.0), (Disk::Slow, 1500.0, 8.0)]
        {
            report.cleanup_beside.push(CleanupBeside {
                disk,
                rows: 1,
                keys_per_second,
                with: waits(p99_ms),
                without: waits(4.0),
            });
        }
        let rate = found(
            &report,
            "clean-up beside 1,000 payments a second on the slow disk",
        );
        assert_eq!((rate.reached, rate.holds()), (1500.0, false));
        let start = "p99 of 1,000 payments a second beside the clean-up over without it";
        let waits = |disk: Disk| found(&report, &format!("{start}, {}", disk.label())).reached;
        assert_eq!((waits(Disk::Machine), waits(Disk::Slow)), (0.75, 2.0));
    }

    #[test]
    fn digits_are_put_in_threes() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (10_000_000, "10,000,000"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
