//! The table of a document's section: a line for each subject and number of connections.

use super::ratios::thousands;
use super::{Report, Run, Series, median};
use crate::load::Latency;

const RUNS_HEAD: &str = "\
| | connections | a second | p50 ms | p99 ms | max ms | other than 201 | processor µs per answer: service, PostgreSQL, generator, rest | busy | memory MiB |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |
";

/// One line for each number of connections of each series.
pub fn runs_table(report: &Report, series: &[Series]) -> String {
    let mut text = String::from(RUNS_HEAD);
    for &series in series {
        for connections in report.connections_of(series) {
            text += &runs_line(series, connections, &report.runs_of(series, connections));
        }
    }
    text
}

fn runs_line(series: Series, connections: u32, runs: &[&Run]) -> String {
    let of = |value: fn(&Run) -> Option<f64>, digits: usize| {
        let found = median(runs.iter().filter_map(|run| value(run)));
        found.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
    };
    let latency = |pick: fn(&Latency) -> f64| {
        let found = median(runs.iter().filter_map(|run| run.latency.as_ref()).map(pick));
        found.map_or("–".to_owned(), |value| format!("{value:.1}"))
    };
    let usage = match runs.iter().any(|run| run.usage.busy_percent.is_some()) {
        true => format!(
            "{}, {}, {}, {} | {} %",
            of(|run| run.usage.service_us, 0),
            of(|run| run.usage.postgres_us, 0),
            of(|run| run.usage.generator_us, 0),
            of(|run| run.usage.others_us, 0),
            of(|run| run.usage.busy_percent, 0),
        ),
        false => "– | –".to_owned(),
    };
    let rate = median(runs.iter().map(|run| run.per_second)).unwrap_or_default();
    let others: u64 = runs.iter().map(|run| run.other_answers).sum();
    format!(
        "| {} | {connections} | {} | {} | {} | {} | {others} | {usage} | {} |\n",
        series.label(),
        thousands(rate.round() as u64),
        latency(|waits| waits.p50_ms),
        latency(|waits| waits.p99_ms),
        latency(|waits| waits.max_ms),
        of(|run| run.usage.memory_mib, 0),
    )
}
