//! What is logged, and how.

use clap::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{ParseError, Targets};

use super::value::Refused;
use crate::telemetry::{LogFormat, Traces};

/// The log's settings.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// What is logged: a level (error, warn, info, debug, trace, off), or levels by module, as info,payonce=debug.
    #[arg(
        long,
        env = "PAYONCE_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    #[arg(value_parser = log_filter)]
    pub log: Targets,
    /// Format of log lines [default: text on a terminal, else json].
    #[arg(long, env = "PAYONCE_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

impl LogArgs {
    /// Starts logging to standard error, and tracing if `traces` are exported.
    pub fn init(&self, traces: Option<&Traces>) {
        let format = self.log_format.unwrap_or_else(LogFormat::for_stderr);
        crate::telemetry::init(self.log.clone(), format, traces);
    }
}

/// A filter accepts any word as a module's name, so a misspelt level would turn logging off altogether. Such a word is refused.
fn log_filter(text: &str) -> Result<Targets, Refused> {
    let is_one_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_one_word && text.parse::<LevelFilter>().is_err() {
        return Err(Refused::new(
            "the levels are error, warn, info, debug, trace and off",
        ));
    }
    // A filter by spans or fields would look each span up whenever a request enters or leaves it.
    let is_by_module = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-=,".contains(&byte);
    if !text.bytes().all(is_by_module) {
        return Err(Refused::new("it takes levels by module, and nothing else"));
    }
    text.parse()
        .map_err(|error: ParseError| Refused::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        for text in [
            "info",
            "off",
            "WARN",
            "info,payonce=debug",
            "payonce::http=trace",
        ] {
            assert!(log_filter(text).is_ok(), "{text}");
        }
        for text in [
            "inof",
            "payonce=loud",
            "payonce[request]=debug",
            "[{key}]=debug",
        ] {
            assert!(log_filter(text).is_err(), "{text}");
        }
    }
}
