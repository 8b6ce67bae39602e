//! What matters most, first: payments a second, and the processor time of one.

use std::fmt::Write;

use super::ratios::thousands;
use super::{Report, Run, Series, median};

/// Where the machine is busy and nobody queues for long.
const CONNECTIONS: u32 = 128;

/// Payments a second beside the processor time of each, by who spends it.
pub fn section(report: &Report) -> String {
    let series = [
        Series::Payonce,
        Series::Against,
        Series::Yardstick,
        Series::TwoPhase,
        Series::Reference,
    ];
    let lines: Vec<String> = series
        .into_iter()
        .filter_map(|series| line(report, series))
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "## In short\n\n\
         New payments at {CONNECTIONS} connections: how many a second, and what one takes of the processor.\n\n\
         | | a second | µs of the service | µs of PostgreSQL | together |\n\
         | --- | ---: | ---: | ---: | ---: |\n"
    );
    text += &lines.concat();
    for (what, name) in [
        ("The other revision", report.against.as_ref().map(name_of)),
        (
            "The running service",
            report.yardstick.as_ref().map(|url| format!("`{url}`")),
        ),
    ] {
        if let Some(name) = name {
            let _ = write!(text, "\n{what} is {name}.");
        }
    }
    text
}

fn name_of(revision: &crate::revision::Revision) -> String {
    let crate::revision::Revision { name, commit } = revision;
    match commit.starts_with(name.as_str()) {
        true => format!("`{commit}`"),
        false => format!("`{name}`, commit `{commit}`"),
    }
}

fn line(report: &Report, series: Series) -> Option<String> {
    let runs = report.runs_of(series, CONNECTIONS);
    let of = |value: fn(&Run) -> Option<f64>| {
        let found = median(runs.iter().filter_map(|run| value(run)));
        found.map_or("–".to_owned(), |value| format!("{value:.0}"))
    };
    Some(format!(
        "| {} | {} | {} | {} | {} |\n",
        series.label(),
        thousands(report.rate(series, CONNECTIONS)?.round() as u64),
        of(|run| run.usage.service_us),
        of(|run| run.usage.postgres_us),
        of(|run| run.usage.service_and_postgres_us()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Usage;
    use crate::report::sample;
    use crate::revision::Revision;

    #[test]
    fn throughput_stands_beside_processor_time() {
        let mut report = sample::report();
        assert_eq!(section(&report), "", "nothing at 128 connections");
        let usage = Usage {
            service_us: Some(60.4),
            postgres_us: Some(41.0),
            ..Usage::default()
        };
        let mut run = report.runs[0].clone();
        run.connections = CONNECTIONS;
        report.runs.push(Run {
            usage,
            ..run.clone()
        });
        report.runs.push(Run {
            series: Series::Against,
            ..run
        });
        let revision = |name: &str| Revision {
            name: name.to_owned(),
            commit: "55abca4f0123".to_owned(),
        };
        report.against = Some(revision("55abca4"));
        let text = section(&report);
        assert!(
            text.contains("| payonce | 9,000 | 60 | 41 | 101 |"),
            "{text}"
        );
        assert!(text.contains("| payonce, the other revision | 9,000 | – | – | – |"));
        assert!(text.ends_with("The other revision is `55abca4f0123`."));
        report.against = Some(revision("v1.0"));
        assert!(section(&report).ends_with("is `v1.0`, commit `55abca4f0123`."));
    }
}
