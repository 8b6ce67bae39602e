//! Secrets from files. `NAME_FILE` holds the path of a file whose content is the value of the secret setting `NAME`, which is how
//! Docker, Kubernetes and systemd hand secrets over.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clap::{Arg, Command};

/// Larger than any secret. A wrong path, to a log or a device, is refused in place of being read to its end.
const LARGEST_SECRET: u64 = 64 * 1024;

/// Why a secret cannot be taken from its file. No message contains any part of the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretFileError {
    /// The value and its file are both given.
    #[error("{name} and {name}_FILE are both set: unset one of them")]
    Both {
        /// The setting.
        name: String,
    },
    /// The file cannot be read.
    #[error("{name}_FILE: {path} cannot be read: {source}")]
    Unreadable {
        /// The setting.
        name: String,
        /// The value of `NAME_FILE`.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Adds each secret whose file is named as a flag, which only this process sees. A flag that was given takes precedence, as it does
/// over a variable.
///
/// `variable` returns the value of a variable that is set and not empty.
pub(super) fn resolve(
    command: &Command,
    mut args: Vec<OsString>,
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Vec<OsString>, SecretFileError> {
    let (leaf, first) = leaf(command, &args);
    let mut flags = Vec::new();
    for arg in leaf.get_arguments().filter(|arg| is_secret(arg)) {
        let (Some(name), Some(flag)) = (arg.get_env(), arg.get_long()) else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        let Some(path) = variable(OsStr::new(&format!("{name}_FILE"))) else {
            continue;
        };
        if is_given(&args, flag) {
            continue;
        }
        if variable(OsStr::new(&name)).is_some() {
            return Err(SecretFileError::Both { name });
        }
        let secret = read(Path::new(&path)).map_err(|source| SecretFileError::Unreadable {
            name,
            path: path.to_string_lossy().into_owned(),
            source,
        })?;
        flags.push(format!("--{flag}={secret}").into());
    }
    args.splice(first..first, flags);
    Ok(args)
}

/// Settings whose value is never shown.
fn is_secret(arg: &Arg) -> bool {
    arg.is_hide_env_values_set()
}

/// The command that the arguments name, and the position of its first own argument.
fn leaf<'a>(command: &'a Command, args: &[OsString]) -> (&'a Command, usize) {
    let mut leaf = command;
    let mut first = args.len().min(1);
    while let Some(next) = args.get(first).and_then(|name| leaf.find_subcommand(name)) {
        leaf = next;
        first += 1;
    }
    (leaf, first)
}

fn is_given(args: &[OsString], flag: &str) -> bool {
    args.iter().any(|arg| {
        let arg = arg.to_string_lossy();
        let name = arg.strip_prefix("--").unwrap_or_default();
        name == flag || name.split_once('=').is_some_and(|(name, _)| name == flag)
    })
}

fn read(path: &Path) -> io::Result<String> {
    let mut secret = String::new();
    File::open(path)?
        .take(LARGEST_SECRET + 1)
        .read_to_string(&mut secret)?;
    if u64::try_from(secret.len()).unwrap_or(u64::MAX) > LARGEST_SECRET {
        let limit = format!("it is larger than {LARGEST_SECRET} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, limit));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::cli::cleanup::CleanupCli;

    fn resolved(
        command: &Command,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Vec<String>, String> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        let value = |name: &OsStr| variables.get(name.to_str()?).map(OsString::from);
        let args = args.iter().map(OsString::from).collect();
        let resolved = resolve(command, args, value).map_err(|error| error.to_string())?;
        let text = |arg: OsString| arg.into_string().expect("text");
        Ok(resolved.into_iter().map(text).collect())
    }

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), content).expect("written");
        file
    }

    #[test]
    fn each_secret_of_the_command_is_read_from_its_file_and_no_other() {
        let url = file("postgres://h/d\n");
        let path = url.path().to_str().expect("text");
        let variables = [
            ("DATABASE_URL_FILE", path),
            ("PAYONCE_FINGERPRINT_SECRET_FILE", path),
        ];
        let serve = resolved(
            &Cli::command(),
            &["payonce", "serve", "--no-migrate"],
            &variables,
        );
        let serve = serve.expect("read");
        assert_eq!(serve[..2], ["payonce", "serve"]);
        assert_eq!(serve[4], "--no-migrate");
        for flag in ["--database-url", "--fingerprint-secret"] {
            assert!(
                serve.contains(&format!("{flag}=postgres://h/d\n")),
                "{flag}"
            );
        }
        // Commands of their own, and a program without commands, take only what they know.
        for (command, args) in [
            (
                Cli::command(),
                &["payonce", "merchants", "list", "--json"][..],
            ),
            (CleanupCli::command(), &["payonce-cleanup", "--dry-run"][..]),
        ] {
            let args = resolved(&command, args, &variables).expect("read");
            let own = args.len() - 2;
            assert_eq!(args[own], "--database-url=postgres://h/d\n", "{args:?}");
            assert!(!args.iter().any(|arg| arg.starts_with("--fingerprint")));
        }
    }

    #[test]
    fn a_setting_that_is_no_secret_has_no_file() {
        let listen = file("0.0.0.0:1");
        let variables = [("PAYONCE_LISTEN_FILE", listen.path().to_str().expect("text"))];
        let args = resolved(&Cli::command(), &["payonce", "serve"], &variables);
        assert_eq!(args.expect("nothing to read"), ["payonce", "serve"]);
    }

    #[test]
    fn a_flag_takes_precedence_and_a_variable_contradicts() {
        let missing = [("DATABASE_URL_FILE", "/nowhere/url")];
        for given in [&["--database-url=u"][..], &["--database-url", "u"]] {
            let args = [&["payonce", "migrate"][..], given].concat();
            assert_eq!(
                resolved(&Cli::command(), &args, &missing),
                Ok(args.iter().map(ToString::to_string).collect())
            );
        }
        let both = [("DATABASE_URL", "u"), ("DATABASE_URL_FILE", "/nowhere/url")];
        let refused = resolved(&Cli::command(), &["payonce", "migrate"], &both);
        assert_eq!(
            refused.expect_err("both"),
            "DATABASE_URL and DATABASE_URL_FILE are both set: unset one of them"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_and_not_shown() {
        let migrate = |path: &str| {
            let variables = [("DATABASE_URL_FILE", path)];
            resolved(&Cli::command(), &["payonce", "migrate"], &variables).expect_err("unreadable")
        };
        assert!(
            migrate("/nowhere/url").starts_with("DATABASE_URL_FILE: /nowhere/url cannot be read: ")
        );
        let largest = usize::try_from(LARGEST_SECRET).expect("a size");
        let long = file(&"s".repeat(largest + 1));
        let refused = migrate(long.path().to_str().expect("text"));
        assert!(
            refused.ends_with("it is larger than 65536 bytes"),
            "{refused}"
        );
        let longest = file(&"s".repeat(largest));
        assert!(read(longest.path()).is_ok());
    }
}
