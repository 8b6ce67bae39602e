//! The programs that the benchmark runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};

use crate::options::Options;

/// The folders of payonce's and PostgreSQL's programs.
#[derive(Clone, Debug)]
pub struct Programs {
    payonce: PathBuf,
    postgres: Option<PathBuf>,
}

impl Programs {
    pub fn find(options: &Options) -> anyhow::Result<Self> {
        let payonce = match &options.programs {
            Some(folder) => folder.clone(),
            None => std::env::current_exe()?
                .parent()
                .context("this program lies in no folder")?
                .to_owned(),
        };
        let programs = Self {
            payonce,
            postgres: options.postgres_bin.clone(),
        };
        for name in ["payonce", "payonce-cleanup"] {
            let path = programs.payonce.join(name);
            if !path.exists() {
                bail!(
                    "{} is missing: cargo build --release -p payonce",
                    path.display()
                );
            }
        }
        for name in ["pgbench", "pg_test_fsync"] {
            programs.postgres(name)?;
        }
        Ok(programs)
    }

    /// The same but for payonce's own programs.
    pub fn with_payonce(&self, folder: PathBuf) -> Self {
        Self {
            payonce: folder,
            ..self.clone()
        }
    }

    /// `payonce` or `payonce-cleanup`, without the caller's settings.
    pub fn payonce(&self, name: &str) -> Command {
        let mut command = Command::new(self.payonce.join(name));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PAYONCE_") {
                command.env_remove(variable);
            }
        }
        command
    }

    /// One of PostgreSQL's programs, which are not on PATH on Debian.
    pub fn postgres(&self, name: &str) -> anyhow::Result<Command> {
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = self.postgres.iter().cloned().collect();
        folders.extend(std::env::split_paths(&on_path));
        folders.extend(debian_folders());
        let found = folders.iter().map(|folder| folder.join(name));
        match found.into_iter().find(|path| path.exists()) {
            Some(path) => Ok(Command::new(path)),
            None => bail!("{name} is missing; it comes with PostgreSQL's server (--postgres-bin)"),
        }
    }
}

/// The newest version first.
fn debian_folders() -> Vec<PathBuf> {
    let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let mut folders: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let path = version.ok()?.path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            Some((number, path.join("bin")))
        })
        .collect();
    folders.sort();
    folders.into_iter().rev().map(|(_, path)| path).collect()
}

/// Runs a program to its end. Returns its standard output if it succeeded.
pub async fn output(command: &mut Command) -> anyhow::Result<String> {
    command.stdin(Stdio::null());
    let name = Path::new(command.get_program()).display().to_string();
    let mut command = std::mem::replace(command, Command::new(""));
    let ran = tokio::task::spawn_blocking(move || command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = ran.await?.with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!(
            "{name}: {status}: {}",
            String::from_utf8_lossy(&stderr).trim()
        );
    }
    Ok(String::from_utf8(stdout)?)
}
