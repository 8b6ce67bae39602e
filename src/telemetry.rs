//! Telemetry: log lines on standard error, for a person on a terminal or for a collector of JSON.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

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

/// Starts logging to standard error. Where a subscriber is set already, by an embedder or an
/// earlier call, it stays.
pub fn init(filter: EnvFilter, format: LogFormat) {
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was set up before");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_call_changes_nothing() {
        init(EnvFilter::new("off"), LogFormat::Text);
        init(EnvFilter::new("off"), LogFormat::Json);
    }
}
