//! The settings: one list, in `Config`, in `payonce serve --help`, in `.env.example` and in the README, and the error for an
//! invalid value.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, Args, Command};
use payonce::config::ServeArgs;
use sqlx::postgres::PgConnectOptions;

use crate::support::process::{error_line, program, run};

/// API.md's list, with its defaults. It is fixed: names and defaults are added, never changed.
const PROMISED: &[(&str, Option<&str>)] = &[
    ("DATABASE_URL", None),
    ("PAYONCE_LISTEN", Some("127.0.0.1:8080")),
    ("PAYONCE_FINGERPRINT_SECRET", None),
    ("PAYONCE_KEY_TTL", Some("24h")),
    ("PAYONCE_LOCK_TIMEOUT", Some("5s")),
    ("PAYONCE_RETRY_INTERVAL", Some("50ms")),
    ("PAYONCE_MAX_RETRIES", Some("100")),
    ("PAYONCE_GATEWAY", Some("simulated")),
    ("PAYONCE_GATEWAY_TIMEOUT", Some("10s")),
    ("PAYONCE_SIMULATED_GATEWAY_LATENCY", Some("100ms")),
    ("PAYONCE_STRIPE_API_BASE", Some("https://api.stripe.com")),
    ("PAYONCE_STRIPE_SECRET_KEY", None),
    ("PAYONCE_RECOVERY_INTERVAL", Some("1s")),
    ("PAYONCE_DATABASE_MAX_CONNECTIONS", Some("20")),
    ("PAYONCE_LOG", Some("info")),
    ("PAYONCE_LOG_FORMAT", None),
];

/// A variable with its default.
type Settings = BTreeMap<String, Option<String>>;

/// The arguments of `Config` that can be set by the environment.
fn arguments() -> Vec<Arg> {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let settings = command
        .get_arguments()
        .filter(|arg| arg.get_env().is_some());
    settings.cloned().collect()
}

fn variable(arg: &Arg) -> String {
    let name = arg.get_env().expect("it has a variable");
    name.to_string_lossy().into_owned()
}

fn default(arg: &Arg) -> Option<String> {
    let default = arg.get_default_values().first()?;
    Some(default.to_string_lossy().into_owned())
}

fn in_config() -> Settings {
    let arguments = arguments();
    let settings = arguments.iter().map(|arg| (variable(arg), default(arg)));
    settings.collect()
}

/// Each line of `.env.example` that sets a variable, or would without its `#`.
struct Example {
    variable: String,
    value: String,
    is_set: bool,
    /// It is below a comment, or below a setting that is.
    is_explained: bool,
}

fn examples() -> Vec<Example> {
    let text = include_str!("../../.env.example");
    let mut examples = Vec::new();
    let mut is_explained = false;
    for line in text.lines() {
        let is_comment = line.starts_with("# ");
        if let Some((variable, value)) = line.trim_start_matches('#').split_once('=')
            && !is_comment
        {
            examples.push(Example {
                variable: variable.to_owned(),
                value: value.to_owned(),
                is_set: !line.starts_with('#'),
                is_explained,
            });
        }
        is_explained = !line.is_empty() && (is_explained || is_comment);
    }
    examples
}

/// What `--help` shows: `[env: NAME=]` or, for a secret, `[env: NAME]`, and then its default.
fn in_help() -> Settings {
    let output =
        run(program("payonce", &PgConnectOptions::new_without_pgpass()).args(["serve", "--help"]));
    assert_eq!(output.status.code(), Some(0));
    let help = String::from_utf8(output.stdout).expect("text");
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let after_each = help.split("[env: ").skip(1);
    let settings = after_each.map(|text| {
        let (shown, after) = text.split_once(']').expect("the end of a variable");
        let default = after.trim_start().strip_prefix("[default: ");
        let default = default.and_then(|rest| rest.split_once(']'));
        let name = shown.trim_end_matches('=').to_owned();
        (name, default.map(|(default, _)| default.to_owned()))
    });
    settings.collect()
}

#[test]
fn nothing_that_was_promised_is_missing_or_has_another_default() {
    let config = in_config();
    for (name, default) in PROMISED {
        let found = config.get(*name);
        let found = found.unwrap_or_else(|| panic!("{name} is in API.md, and not in Config"));
        assert_eq!(found.as_deref(), *default, "{name}");
    }
}

#[test]
fn the_config_the_help_and_the_example_have_the_same_settings_with_the_same_defaults() {
    let config = in_config();
    assert_eq!(in_help(), config, "payonce serve --help, and Config");
    let examples = examples();
    let names: BTreeSet<&str> = examples.iter().map(|line| line.variable.as_str()).collect();
    assert_eq!(names.len(), examples.len(), "a setting stands there once");
    assert_eq!(
        names,
        config.keys().map(String::as_str).collect(),
        ".env.example, and Config"
    );
    for example in &examples {
        let Example {
            variable, value, ..
        } = example;
        assert!(example.is_explained, "{variable} has no comment");
        match (&config[variable], example.is_set) {
            (Some(default), _) => assert_eq!(value, default, "{variable}"),
            (None, true) => assert!(!value.is_empty(), "{variable} is required"),
            (None, false) => assert_eq!(value, "", "{variable} has no default"),
        }
    }
}

#[test]
fn the_example_sets_what_is_required_and_every_value_in_it_is_good() {
    let arguments = arguments();
    for example in examples() {
        let arg = arguments
            .iter()
            .find(|arg| variable(arg) == example.variable);
        let is_required = arg.expect("a setting").is_required_set();
        assert_eq!(example.is_set, is_required, "{}", example.variable);
    }
    let flags = examples()
        .into_iter()
        .filter(|example| !example.value.is_empty());
    let flags = flags.map(|example| {
        let arg = arguments
            .iter()
            .find(|arg| variable(arg) == example.variable);
        let flag = arg.and_then(Arg::get_long).expect("a flag");
        format!("--{flag}={}", example.value)
    });
    let command = ServeArgs::augment_args(Command::new("serve"));
    let parsed = command.try_get_matches_from(std::iter::once("serve".to_owned()).chain(flags));
    parsed.expect("good settings");
}

#[test]
fn the_readme_has_every_setting() {
    let readme = include_str!("../../README.md");
    for name in in_config().keys() {
        assert!(readme.contains(&format!("`{name}`")), "{name}");
    }
}

/// A value that is invalid for every setting with a format.
const NONSENSE: &str = "hunter2,,\u{7f} ";

fn is_secret(variable: &str) -> bool {
    let parts = ["DATABASE_URL", "SECRET", "TOKEN", "PASSWORD"];
    parts.iter().any(|part| variable.contains(part))
}

/// `payonce serve` with all that it requires, on a database that is not there.
fn serve() -> std::process::Command {
    let mut serve = program("payonce", &PgConnectOptions::new_without_pgpass());
    serve
        .arg("serve")
        .env("DATABASE_URL", "postgres://u:hunter3@127.0.0.1:1/d")
        .env("PAYONCE_FINGERPRINT_SECRET", "hunter3-hunter3-hunter3")
        .env("PAYONCE_STRIPE_SECRET_KEY", "sk_test_hunter3");
    serve
}

#[test]
fn nonsense_is_refused_in_one_line_that_names_the_setting_and_shows_no_secret() {
    for arg in arguments() {
        let (name, flag) = (variable(&arg), arg.get_long().expect("a flag"));
        let by_variable = run(serve().env(&name, NONSENSE));
        let by_flag = run(serve().arg(format!("--{flag}={NONSENSE}")));
        for (way, output) in [("variable", by_variable), ("flag", by_flag)] {
            let context = format!("{name} by its {way}");
            assert_eq!(output.status.code(), Some(2), "{context}");
            let line = error_line(&output);
            assert!(
                line.contains(&format!("--{flag} ({name})")),
                "{context}: {line}"
            );
            assert!(!line.contains("hunter3"), "{context}: {line}");
            if is_secret(&name) {
                assert!(!line.contains("hunter2"), "{context}: {line}");
            }
        }
    }
}

#[test]
fn the_help_shows_no_secret_that_is_set() {
    for name in arguments()
        .iter()
        .map(variable)
        .filter(|name| is_secret(name))
    {
        let output = run(serve().env(&name, "hunter2-hunter2-hunter2").arg("--help"));
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(!help.contains("hunter"), "{name}: {help}");
    }
}
