//! How many writes a second the disk makes durable: `pg_test_fsync` in the data directory.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::database::DatabaseServer;
use crate::programs::{self, Programs};

/// The rates of a single durable 8 KiB write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fsync {
    /// `wal_sync_method` of the server.
    pub server_method: String,
    /// Each method with its operations per second.
    pub methods: Vec<(String, f64)>,
    /// Whether it was measured in the server's data directory.
    pub beside_the_data: bool,
}

impl Fsync {
    /// The rate of the method that the server uses.
    pub fn server_rate(&self) -> Option<f64> {
        let mut methods = self.methods.iter();
        let (_, rate) = methods.find(|(name, _)| *name == self.server_method)?;
        Some(*rate)
    }
}

pub async fn measure(server: &DatabaseServer, programs: &Programs) -> anyhow::Result<Fsync> {
    let data = server.data_directory().await;
    let beside = data.as_deref().and_then(Path::parent);
    let (folder, beside_the_data) =
        match beside.and_then(|beside| tempfile::tempdir_in(beside).ok()) {
            Some(folder) => (folder, true),
            None => (tempfile::tempdir_in(".")?, false),
        };
    let command = programs.postgres("pg_test_fsync")?;
    let method = &server.settings.wal_sync_method;
    let fsync = measure_in(folder.path(), command, method).await?;
    Ok(Fsync {
        beside_the_data,
        ..fsync
    })
}

/// Runs `pg_test_fsync` with a file in a folder, which is taken to be beside the server's data.
pub async fn measure_in(
    folder: &Path,
    mut pg_test_fsync: Command,
    server_method: &str,
) -> anyhow::Result<Fsync> {
    // One second for each of its tests, the least it takes.
    pg_test_fsync
        .arg("--secs-per-test=1")
        .arg("--filename")
        .arg(folder.join("pg_test_fsync.out"));
    let said = programs::output(&mut pg_test_fsync).await?;
    Ok(Fsync {
        server_method: server_method.to_owned(),
        methods: parse(&said).context("pg_test_fsync says what is not understood")?,
        beside_the_data: true,
    })
}

/// The first table: "Compare file sync methods using one 8kB write".
fn parse(said: &str) -> Option<Vec<(String, f64)>> {
    let methods: Vec<(String, f64)> = said
        .lines()
        .skip_while(|line| !line.contains("using one 8kB write"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            let rate = words.next()?.parse().ok()?;
            Some((name.to_owned(), rate))
        })
        .collect();
    (!methods.is_empty()).then_some(methods)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
1 second per test
O_DIRECT supported on this platform for open_datasync and open_sync.

Compare file sync methods using one 8kB write:
(in wal_sync_method preference order, except fdatasync is Linux's default)
        open_datasync                      1234.500 ops/sec     810 usecs/op
        fdatasync                          2345.250 ops/sec     426 usecs/op
        fsync_writethrough                              n/a

Compare file sync methods using two 8kB writes:
        open_datasync                         1.000 ops/sec     810 usecs/op
";

    #[test]
    fn the_rates_of_one_write_are_read() {
        let methods = parse(SAID).expect("a table");
        let expected = [("open_datasync", 1234.5), ("fdatasync", 2345.25)];
        assert_eq!(
            methods,
            expected.map(|(name, rate)| (name.to_owned(), rate))
        );
        let fsync = Fsync {
            server_method: "fdatasync".to_owned(),
            methods,
            beside_the_data: true,
        };
        assert_eq!(fsync.server_rate(), Some(2345.25));
        assert_eq!(parse("nothing"), None);
    }
}
