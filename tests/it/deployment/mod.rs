//! The files by which the service is deployed agree with the programs: what they start, ask and set is compared with what the
//! programs take, answer and know. `scripts/test-containers` runs them, where a container engine can be started.

mod compose;
mod kubernetes;
mod systemd;

use std::collections::BTreeSet;

use clap::{Args, Command};
use payonce::config::ServeArgs;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;

use crate::support::process::{program, run};

/// A stopping service takes 15 s for requests under way and 15 s for the engine at most (`startup.rs`): whoever stops it
/// waits longer.
const STOP_SECONDS: u64 = 35;

/// The variables that `payonce serve` knows.
fn settings() -> BTreeSet<String> {
    let command = ServeArgs::augment_args(Command::new("serve"));
    let variables = command.get_arguments().filter_map(|arg| arg.get_env());
    variables
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// A deployment's command is one that the program accepts.
fn assert_is_taken(command: &[&str]) {
    let (name, arguments) = command.split_first().expect("a program");
    let name = name.rsplit('/').next().expect("a name");
    let nowhere = PgConnectOptions::new_without_pgpass();
    // An unknown argument before --help is refused.
    let taken = run(program(name, &nowhere).args(arguments).arg("--help"));
    assert_eq!(taken.status.code(), Some(0), "{command:?}: {taken:?}");
    let refused = run(program(name, &nowhere)
        .args(arguments)
        .args(["--no-such-flag", "--help"]));
    assert_eq!(refused.status.code(), Some(2), "{command:?}");
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter()
        .map(|item| item.as_str().expect("text"))
        .collect()
}
