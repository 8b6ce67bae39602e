//! Telemetry: log lines on standard error (text for a terminal, JSON for a collector), metrics, and traces.

mod json_fields;
mod metrics;
mod protocol_errors;
mod traces;

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use self::json_fields::AppendedFields;
pub use self::metrics::{UPKEEP_INTERVAL, keep_up, metrics};
use self::protocol_errors::HideProtocolErrors;
pub use self::traces::{REQUESTS, Traces, TracesError, describe, follow};

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text, with colours on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// Text if standard error is a terminal, else JSON.
    pub fn for_stderr() -> Self {
        if io::stderr().is_terminal() {
            Self::Text
        } else {
            Self::Json
        }
    }
}

/// Starts logging to standard error, and tracing if traces are exported. A subscriber that an embedding service or an earlier call
/// has set stays in place.
pub fn init(filter: Targets, format: LogFormat, traces: Option<&Traces>) {
    let hide_errors = HideProtocolErrors::unless_debugging(&filter);
    let started = match traces {
        None => {
            let lines = lines(format).with_filter(hide_errors);
            registry().with(filter).with(lines).try_init()
        }
        Some(traces) => {
            let lines = lines(format).with_filter(hide_errors).with_filter(filter);
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
        init(Targets::new(), LogFormat::Text, None);
        init(Targets::new(), LogFormat::Json, None);
    }
}
