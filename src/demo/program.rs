//! A program is an executable of this crate, run as a process with the demonstrations' own settings.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use secrecy::ExposeSecret;
use tokio::process::Command;

use crate::config::DatabaseArgs;

/// Number of lines of a program's output that are kept: enough for an error with its causes.
const KEPT_LINES: usize = 8;

/// Maximum length of a line, in characters. Longer lines are cut.
const LONGEST_LINE: usize = 400;

/// The running program itself, as `payonce serve`.
pub(super) fn serve(database: &DatabaseArgs) -> anyhow::Result<Command> {
    let mut serve = command(path_of_this()?);
    serve.arg("serve");
    Ok(on(database, serve))
}

/// Another program in the same folder as this one.
pub(super) fn sibling(name: &str, database: &DatabaseArgs) -> anyhow::Result<Command> {
    let path = path_of_this()?.with_file_name(name);
    ensure!(
        path.is_file(),
        "there is no {}: build it by `cargo build --bins`, with --release if this program was",
        path.display()
    );
    Ok(on(database, command(path)))
}

fn path_of_this() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program is")
}

fn command(path: PathBuf) -> Command {
    let mut command = Command::new(path);
    // The shell's settings must not apply to a demonstration, above all a gateway that moves real money.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PAYONCE_") {
            command.env_remove(name);
        }
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Adds the database that this program was given.
fn on(database: &DatabaseArgs, mut command: Command) -> Command {
    // The URL contains a password, and arguments are visible to other users.
    command.env("DATABASE_URL", database.database_url.expose_secret());
    if database.allow_unsafe_database {
        command.arg("--allow-unsafe-database");
    }
    command
}

/// The last lines of a program's output. Clones share them.
#[derive(Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    pub(super) fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(LONGEST_LINE).collect());
    }

    pub(super) fn get(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_long_ones_cut() {
        let lines = LastLines::default();
        for number in 0..20 {
            lines.push(&number.to_string());
        }
        assert_eq!(lines.get().first().map(String::as_str), Some("12"));
        lines.push(&"x".repeat(10_000));
        let last = lines.get().pop().expect("a line");
        assert_eq!((lines.get().len(), last.len()), (KEPT_LINES, LONGEST_LINE));
    }
}
