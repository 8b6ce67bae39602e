//! Parses arguments and environment. An error is one line that names the setting by its flag and its environment variable, and never
//! repeats a secret.

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Arg, Command, Parser};

use super::{exit, secret_files};

/// Parses the process's arguments.
///
/// # Errors
///
/// The exit status, if the program ends here. The message has been printed already.
pub(super) fn parse<P: Parser>() -> Result<P, ExitCode> {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let variable = |name: &OsStr| env::var_os(name).filter(|value| !value.is_empty());
    let command = P::command();
    let args = secret_files::resolve(&command, env::args_os().collect(), variable)
        .map_err(|error| exit::misuse(command.get_name(), &error.to_string()))?;
    parse_from::<P>(args, is_empty).map_err(|error| {
        if !error.use_stderr() {
            // --help and --version. If printing fails, there is no place to report it.
            drop(error.print());
            return ExitCode::SUCCESS;
        }
        exit::misuse(command.get_name(), &describe(&error, &command))
    })
}

pub(super) fn parse_from<P: Parser>(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    is_ignored: impl Fn(&OsStr) -> bool + Copy,
) -> Result<P, Error> {
    let command = without_variables(P::command(), is_ignored);
    P::from_arg_matches(&command.try_get_matches_from(args)?)
}

/// Ignores empty variables, but keeps them in the help: Docker Compose passes a variable that is not set as an empty one.
fn without_variables(command: Command, is_ignored: impl Fn(&OsStr) -> bool + Copy) -> Command {
    command
        .mut_args(|arg| match arg.get_env() {
            Some(name) if is_ignored(name) => without_variable(arg),
            _ => arg,
        })
        .mut_subcommands(|command| without_variables(command, is_ignored))
}

fn without_variable(arg: Arg) -> Arg {
    let name = arg.get_env().unwrap_or_default().display();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = format!("{help} [env: {name}=]");
    arg.env(Resettable::Reset).help(help)
}

fn describe(error: &Error, command: &Command) -> String {
    match error.kind() {
        ErrorKind::MissingRequiredArgument => describe_missing(error, command),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => describe_invalid(error, command),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "a command is missing; --help lists them".to_owned()
        }
        _ => first_line(error),
    }
}

fn describe_missing(error: &Error, command: &Command) -> String {
    let Some(ContextValue::Strings(args)) = error.get(ContextKind::InvalidArg) else {
        return first_line(error);
    };
    let names: Vec<String> = args
        .iter()
        .map(|arg| Setting::find(command, arg).name)
        .collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb} required", names.join(" and "))
}

fn describe_invalid(error: &Error, command: &Command) -> String {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else {
        return first_line(error);
    };
    let setting = Setting::find(command, arg);
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) if !setting.is_secret => format!(" '{value}'"),
        _ => String::new(),
    };
    let reason = match (
        std::error::Error::source(error),
        error.get(ContextKind::ValidValue),
    ) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("expected one of {}", valid.join(", "))
        }
        _ => "a value is needed".to_owned(),
    };
    format!("bad value{value} for {}: {reason}", setting.name)
}

/// clap's own message, without usage and tips.
fn first_line(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// An argument under the name that the user knows.
struct Setting {
    /// `--flag (VARIABLE)`, or the name of a positional argument.
    name: String,
    is_secret: bool,
}

impl Setting {
    /// Finds the argument that clap calls `--flag <VALUE>`, in any command: a flag has the same meaning in all of them.
    fn find(command: &Command, shown: &str) -> Self {
        let flag = shown.split_whitespace().next().unwrap_or(shown);
        match flag
            .strip_prefix("--")
            .and_then(|long| find_arg(command, long))
        {
            Some(arg) => Self {
                name: match arg.get_env() {
                    Some(variable) => format!("{flag} ({})", variable.display()),
                    None => flag.to_owned(),
                },
                is_secret: arg.is_hide_env_values_set(),
            },
            None => Self {
                name: shown.to_owned(),
                is_secret: false,
            },
        }
    }
}

fn find_arg<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(long))
        .or_else(|| {
            command
                .get_subcommands()
                .find_map(|command| find_arg(command, long))
        })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::cli::Command as PayonceCommand;
    use crate::cli::cleanup::CleanupCli;
    use crate::config::{ConfigError, NoStripeSecretKey, ServeArgs};
    use crate::idempotency::IdempotencyConfig;

    /// Parses without the environment of the test run.
    fn parsed<P: Parser>(args: &[&str]) -> Result<P, String> {
        parse_from::<P>(args, |_| true).map_err(|error| describe(&error, &P::command()))
    }

    fn refused(args: &[&str]) -> String {
        parsed::<Cli>(args).map(drop).expect_err("refused")
    }

    const SERVE: &[&str] = &[
        "payonce",
        "serve",
        "--database-url=postgres://h/d",
        "--fingerprint-secret=secret",
    ];

    fn serve(more: &[&str]) -> Result<ServeArgs, String> {
        match parsed::<Cli>(&[SERVE, more].concat())?.command {
            PayonceCommand::Serve(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
        CleanupCli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let args = serve(&[]).expect("good");
        assert_eq!(args.idempotency(), IdempotencyConfig::default());
        assert_eq!(args.server.listen, "127.0.0.1:8080");
        assert!(args.settings().expect("good").migrate);
    }

    #[test]
    fn each_bad_value_names_its_setting() {
        for (flag, variable, value) in [
            ("--database-url", "DATABASE_URL", ""),
            ("--fingerprint-secret", "PAYONCE_FINGERPRINT_SECRET", "a,"),
            ("--listen", "PAYONCE_LISTEN", "nowhere"),
            ("--key-ttl", "PAYONCE_KEY_TTL", "0s"),
            ("--lock-timeout", "PAYONCE_LOCK_TIMEOUT", "0ms"),
            ("--retry-interval", "PAYONCE_RETRY_INTERVAL", "often"),
            ("--max-retries", "PAYONCE_MAX_RETRIES", "-1"),
            ("--group-size", "PAYONCE_GROUP_SIZE", "0"),
            ("--gateway", "PAYONCE_GATEWAY", "paypal"),
            ("--gateway-timeout", "PAYONCE_GATEWAY_TIMEOUT", "0s"),
            (
                "--simulated-gateway-latency",
                "PAYONCE_SIMULATED_GATEWAY_LATENCY",
                "1",
            ),
            ("--stripe-api-base", "PAYONCE_STRIPE_API_BASE", "stripe"),
            ("--stripe-secret-key", "PAYONCE_STRIPE_SECRET_KEY", ""),
            ("--recovery-interval", "PAYONCE_RECOVERY_INTERVAL", "0s"),
            (
                "--database-max-connections",
                "PAYONCE_DATABASE_MAX_CONNECTIONS",
                "0",
            ),
            ("--log", "PAYONCE_LOG", "laud"),
            ("--log-format", "PAYONCE_LOG_FORMAT", "xml"),
        ] {
            let message = refused(&["payonce", "serve", &format!("{flag}={value}")]);
            assert!(
                message.contains(&format!("{flag} ({variable}): ")),
                "{message}"
            );
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn the_help_shows_each_setting_with_its_variable_and_default() {
        let args = ["payonce", "serve", "--help"];
        let help = parse_from::<Cli>(args, |_| true).expect_err("help, not a command");
        assert!(!help.use_stderr(), "it is no error");
        let help = help
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        for (variable, default) in [
            ("DATABASE_URL", ""),
            ("PAYONCE_FINGERPRINT_SECRET", ""),
            ("PAYONCE_LISTEN", "[default: 127.0.0.1:8080]"),
            ("PAYONCE_KEY_TTL", "[default: 24h]"),
            ("PAYONCE_LOCK_TIMEOUT", "[default: 5s]"),
            ("PAYONCE_RETRY_INTERVAL", "[default: 50ms]"),
            ("PAYONCE_MAX_RETRIES", "[default: 100]"),
            ("PAYONCE_GROUP_SIZE", "[default: 256]"),
            ("PAYONCE_GATEWAY", "[default: simulated]"),
            ("PAYONCE_GATEWAY_TIMEOUT", "[default: 10s]"),
            ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "[default: 100ms]"),
            (
                "PAYONCE_STRIPE_API_BASE",
                "[default: https://api.stripe.com]",
            ),
            ("PAYONCE_STRIPE_SECRET_KEY", ""),
            ("PAYONCE_RECOVERY_INTERVAL", "[default: 1s]"),
            ("PAYONCE_DATABASE_MAX_CONNECTIONS", "[default: 20]"),
            ("PAYONCE_LOG", "[default: info]"),
            ("PAYONCE_LOG_FORMAT", ""),
        ] {
            let Some((_, after)) = help.split_once(&format!("[env: {variable}=]")) else {
                panic!("{variable} is not in: {help}");
            };
            let rest = after.split(" --").next().unwrap_or_default();
            assert!(rest.contains(default), "{variable}: {rest}");
        }
    }

    #[test]
    fn a_missing_setting_is_named() {
        assert_eq!(
            refused(&["payonce", "serve"]),
            "--database-url (DATABASE_URL) and --fingerprint-secret (PAYONCE_FINGERPRINT_SECRET) \
             are required"
        );
        assert_eq!(
            refused(&["payonce", "migrate"]),
            "--database-url (DATABASE_URL) is required"
        );
        assert_eq!(
            refused(&["payonce", "merchants", "create", "--database-url=u"]),
            "<ID> is required"
        );
        for no_command in [&["payonce"][..], &["payonce", "merchants"]] {
            assert_eq!(
                refused(no_command),
                "a command is missing; --help lists them"
            );
        }
    }

    #[test]
    fn a_secret_is_not_repeated() {
        let message = refused(&["payonce", "serve", "--fingerprint-secret=hunter2,,"]);
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn stripe_needs_its_key() {
        let settings = |more: &[&str]| {
            serve(more)
                .expect("each value is good")
                .settings()
                .map(drop)
        };
        assert_eq!(
            settings(&["--gateway=stripe"]),
            Err(ConfigError::from(NoStripeSecretKey))
        );
        assert_eq!(
            settings(&["--gateway=stripe", "--stripe-secret-key=sk_test_1"]),
            Ok(())
        );
    }

    #[test]
    fn other_mistakes_take_one_line() {
        assert_eq!(
            refused(&["payonce", "pay"]),
            "unrecognized subcommand 'pay'"
        );
        let message = serve(&["--frobnicate"]).map(drop).expect_err("unknown");
        assert_eq!(message, "unexpected argument '--frobnicate' found");
        let message = parsed::<CleanupCli>(&["payonce-cleanup", "--batch-size=0"]).map(drop);
        let message = message.expect_err("zero");
        assert!(
            message.starts_with("bad value '0' for --batch-size: "),
            "{message}"
        );
    }
}
