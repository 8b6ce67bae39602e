//! Telemetry: log lines on standard error, for a person on a terminal or for a collector of JSON, metrics, and traces.

mod json_fields;
mod metrics;
mod strangers;
mod traces;

use std::io::{self, IsTerminal};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry};

use self::json_fields::AppendedFields;
pub use self::metrics::{UPKEEP_INTERVAL, keep_up, metrics};
use self::strangers::HideStrangers;
pub use self::traces::{PHASES, REQUESTS, Traces, TracesError, describe, follow};

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people; with colours on a terminal.
    Text,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    /// What suits standard error: text on a terminal, else JSON.
    pub fn for_stderr() -> Self {
        if io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Json
        }
    }
}

/// Starts logging to standard error, and what makes traces where they are exported. Where a subscriber is set already, by
/// an embedder or an earlier call, it stays.
pub fn init(filter: EnvFilter, format: LogFormat, traces: Option<&Traces>) {
    let strangers = HideStrangers::unless_debugging(&filter);
    let started = match traces {
        None => {
            let lines = lines(format).with_filter(strangers);
            registry().with(filter).with(lines).try_init()
        }
        Some(traces) => {
            let lines = lines(format).with_filter(strangers).with_filter(filter);
            registry().with(lines).with(traces.layer()).try_init()
        }
    };
    if started.is_err() {
        tracing::debug!("logging was set up before");
    }
}

fn lines<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .fmt_fields(AppendedFields::default())
            .boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_call_changes_nothing() {
        init(EnvFilter::new("off"), LogFormat::Text, None);
        init(EnvFilter::new("off"), LogFormat::Json, None);
    }
}
