//! Exit statuses, and the one line that explains a failure.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::database::DatabaseError;
use crate::merchants::MerchantError;
use crate::merchants::moves::MoveError;
use crate::startup::StartupError;
use crate::telemetry::TracesError;

/// The exit status for bad usage or bad configuration.
const MISUSED: u8 = 2;

/// Prints the error, if there is one, and returns the exit status.
pub(super) fn conclude(program: &str, result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(status) => status,
        Err(error) => {
            complain(program, &with_causes(&error));
            if is_misuse(&error) {
                ExitCode::from(MISUSED)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Refuses the program's arguments.
pub(super) fn misuse(program: &str, message: &str) -> ExitCode {
    complain(program, message);
    ExitCode::from(MISUSED)
}

/// Prints one line on standard error. If that fails, there is no place to report it.
pub(super) fn complain(program: &str, message: &str) {
    let line = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    drop(writeln!(io::stderr(), "{program}: {line}"));
}

fn is_misuse(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let database = match cause.downcast_ref() {
            Some(StartupError::Database(error)) => Some(error),
            Some(StartupError::Secrets(_)) => return true,
            _ => cause.downcast_ref(),
        };
        let merchant = cause.downcast_ref();
        matches!(
            database,
            Some(DatabaseError::Configuration(_) | DatabaseError::Unsafe { .. })
        ) || matches!(
            merchant,
            Some(
                MerchantError::InvalidId
                    | MerchantError::InvalidName
                    | MerchantError::InvalidStripeAccount
            )
        ) || cause.is::<ConfigError>()
            || cause.is::<TracesError>()
            || matches!(cause.downcast_ref(), Some(MoveError::DestinationUrl(_)))
    })
}

/// The error and its causes. The messages of many errors contain their cause, which is not repeated.
fn with_causes(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let server = cause
            .downcast_ref::<sqlx::Error>()
            .and_then(sqlx::Error::as_database_error);
        // sqlx's own message also names the line of PostgreSQL's source code.
        let text = server.map_or_else(|| cause.to_string(), |error| error.message().to_owned());
        if line.is_empty() {
            line = text;
        } else if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        if server.is_some() {
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::config::NoStripeSecretKey;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow!("refused")
            .context("cannot connect: refused")
            .context("failed");
        assert_eq!(with_causes(&error), "failed: cannot connect: refused");
    }

    #[test]
    fn only_what_the_caller_can_mend_is_misuse() {
        let misuse = [
            anyhow!(DatabaseError::Configuration("is bad".to_owned())),
            anyhow!(DatabaseError::Unsafe {
                setting: "fsync".to_owned()
            })
            .context("failed"),
            anyhow!(StartupError::from(DatabaseError::Unsafe {
                setting: "fsync".to_owned()
            })),
            anyhow!(MerchantError::InvalidId),
            anyhow!(ConfigError::from(NoStripeSecretKey)),
        ];
        assert!(misuse.iter().all(is_misuse));
        let other = [
            anyhow!(DatabaseError::NoSchema),
            anyhow!(MerchantError::UnknownMerchant("a".to_owned())),
            anyhow!("else"),
        ];
        assert!(!other.iter().any(is_misuse));
    }
}
