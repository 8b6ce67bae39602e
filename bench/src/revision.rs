//! Another revision of payonce, built from this checkout's history, to be measured in the same rounds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::programs;

/// Where the work trees and their builds lie; a second run finds them there.
const FOLDER: &str = "target/bench";

/// How this checkout's release is built. An older revision may say something else in its own `Cargo.toml`.
const RELEASE_PROFILE: [(&str, &str); 1] = [("CARGO_PROFILE_RELEASE_LTO", "thin")];

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// As it was asked for.
    pub name: String,
    /// The first digits of its commit.
    pub commit: String,
}

/// Checks a revision out and builds it as this one is built. Returns where its programs are.
pub async fn build(name: &str) -> anyhow::Result<(Revision, PathBuf)> {
    let asked = format!("{name}^{{commit}}");
    let mut parsed = git(&["rev-parse", "--verify", "--quiet", "--end-of-options"]);
    let commit = programs::output(parsed.arg(asked))
        .await
        .with_context(|| format!("--against: there is no revision {name}"))?;
    let commit: String = commit.trim().chars().take(12).collect();
    let tree = std::path::absolute(Path::new(FOLDER).join(&commit))?;
    if !tree.join("Cargo.toml").exists() {
        std::fs::create_dir_all(FOLDER)?;
        // By force: an earlier tree that was removed with `target` is still known to git.
        let mut add = git(&["worktree", "add", "--force", "--detach"]);
        programs::output(add.arg(&tree).arg(&commit)).await?;
    }
    let mut build = build_command(&tree);
    let status = tokio::task::spawn_blocking(move || build.status()).await?;
    let status = status.context("cannot run cargo")?;
    ensure!(status.success(), "--against: {name} does not build");
    let revision = Revision {
        name: name.to_owned(),
        commit,
    };
    Ok((revision, tree.join("target/release")))
}

fn git(arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(arguments);
    command
}

/// Both packages together, as `make bench` builds them: the features of what they share are the same then.
fn build_command(tree: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(tree)
        .args(["build", "--release", "--locked", "--bins", "-p", "payonce"])
        .env("CARGO_TARGET_DIR", tree.join("target"))
        .envs(RELEASE_PROFILE)
        // Its queries are checked against what it has stored, not against the database that is measured.
        .env("SQLX_OFFLINE", "true")
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if tree.join("bench/Cargo.toml").exists() {
        command.args(["-p", "payonce-bench"]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_built_as_this_checkout_is() {
        let manifest = include_str!("../../Cargo.toml");
        let (_, profile) = manifest.split_once("[profile.release]\n").expect("one");
        let profile = profile.split_once("\n\n").map_or(profile, |(own, _)| own);
        let settings: Vec<(String, &str)> = profile
            .lines()
            .map(|line| line.split_once(" = ").expect("a setting"))
            .map(|(name, value)| {
                let name = name.to_uppercase().replace('-', "_");
                (
                    format!("CARGO_PROFILE_RELEASE_{name}"),
                    value.trim_matches('"'),
                )
            })
            .collect();
        assert_eq!(
            settings,
            RELEASE_PROFILE.map(|(name, value)| (name.to_owned(), value))
        );
    }

    #[test]
    fn both_packages_are_built_where_there_are_two() {
        let tree = tempfile::tempdir().expect("a folder");
        let packages = || {
            let command = build_command(tree.path());
            command
                .get_args()
                .filter(|argument| *argument == "-p")
                .count()
        };
        assert_eq!(packages(), 1);
        std::fs::create_dir(tree.path().join("bench")).expect("a folder");
        std::fs::write(tree.path().join("bench/Cargo.toml"), "").expect("a file");
        assert_eq!(packages(), 2);
    }
}
