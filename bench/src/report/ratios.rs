//! payonce's targets and results, as ratios within one run, because a slow machine is slow for both sides.

use super::{Report, Series, median};
use crate::scenarios::LAYER_CONNECTIONS;

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
    /// At least this many percent.
    PercentAtLeast(f64),
}

impl Ratio {
    pub fn holds(&self) -> bool {
        match self.required {
            Bound::AtLeast(bound) | Bound::PercentAtLeast(bound) => self.reached >= bound,
            Bound::AtMost(bound) | Bound::WithinMs(bound) => self.reached <= bound,
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
            Self::PercentAtLeast(bound) => format!("≥ {bound} %"),
        }
    }

    /// A value in the bound's unit.
    pub fn value(self, value: f64) -> String {
        match self {
            Self::AtLeast(_) | Self::AtMost(_) => format!("{value:.2} ×"),
            Self::WithinMs(_) => format!("{value:.1} ms"),
            Self::PercentAtLeast(_) => format!("{value:.1} %"),
        }
    }
}

/// All lines whose scenario was measured.
pub fn all(report: &Report) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (connections, times) in [(32, 2.0), (128, 4.0), (512, 6.0)] {
        let ours = (Series::Payonce, connections);
        let other = (Series::Reference, connections);
        let measure =
            format!("new payments, {connections} connections, over the reference handler");
        ratios.extend(of_rates(
            report,
            measure,
            Bound::AtLeast(times),
            ours,
            other,
        ));
    }
    let best = best_connections(report, Series::Pgbench);
    let measure = "new payments, 128 connections, over pgbench's two transactions at its best";
    ratios.extend(of_rates(
        report,
        measure.to_owned(),
        Bound::AtLeast(2.0),
        (Series::Payonce, 128),
        (Series::Pgbench, best),
    ));
    let measure =
        "new payments, 1 connection, over the reference handler (two commits against one)";
    ratios.extend(of_rates(
        report,
        measure.to_owned(),
        Bound::AtLeast(0.5),
        (Series::Payonce, 1),
        (Series::Reference, 1),
    ));
    let replays = report.plan.replay_connections;
    let measure = "replays of 1,000 hot keys over the bare endpoint";
    ratios.extend(of_rates(
        report,
        measure.to_owned(),
        Bound::AtLeast(0.6),
        (Series::HotKeys, replays),
        (Series::Bare, replays),
    ));
    let best = best_connections(report, Series::SelectOne);
    let measure = "replays of keys not in memory over pgbench's select of one row at its best";
    ratios.extend(of_rates(
        report,
        measure.to_owned(),
        Bound::AtLeast(0.3),
        (Series::ColdKeys, replays),
        (Series::SelectOne, best),
    ));
    ratios.extend(storm(report));
    if let Some(many) = &report.many_keys {
        let measure = format!(
            "new payments beside {} keys over empty tables",
            thousands(many.keys)
        );
        let ours = (Series::ManyKeys, many.connections);
        let other = (Series::EmptyTable, many.connections);
        ratios.extend(of_rates(report, measure, Bound::AtLeast(0.9), ours, other));
    }
    ratios.extend(gateway(report));
    ratios.extend(table(report));
    ratios.extend(cleanup(report));
    ratios.extend(layer(report));
    ratios
}

/// Compared within each round, because those measurements were made next to each other.
fn of_rates(
    report: &Report,
    measure: String,
    required: Bound,
    ours: (Series, u32),
    other: (Series, u32),
) -> Option<Ratio> {
    let (ours, other) = (
        report.runs_of(ours.0, ours.1),
        report.runs_of(other.0, other.1),
    );
    let rounds: Vec<f64> = ours
        .iter()
        .filter_map(|run| {
            let beside = other.iter().find(|other| other.round == run.round)?;
            Some(run.per_second / beside.per_second)
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
    let rounds = report.cleanup.iter();
    let rates = rounds
        .clone()
        .map(|round| round.payonce_per_second / round.plain_per_second);
    let waits = rounds.map(|round| round.with.p99_ms / round.without.p99_ms);
    [
        of_rounds(
            "clean-up over a plain DELETE".to_owned(),
            Bound::AtLeast(0.8),
            rates.collect(),
        ),
        of_rounds(
            "p99 of payments beside the clean-up over without it".to_owned(),
            Bound::AtMost(1.5),
            waits.collect(),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
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
            (Bound::PercentAtLeast(95.0), 95.0, 94.9),
        ] {
            assert!(ratio(required, good).holds(), "{required:?}");
            assert!(!ratio(required, bad).holds(), "{required:?}");
        }
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
