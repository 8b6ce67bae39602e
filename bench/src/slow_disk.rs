//! A disk that takes 2 ms longer for a flush than the machine's own: a library between PostgreSQL and the C library, made from
//! `slow_flush.c` by the machine's C compiler, waits at the end of each `fdatasync` and `fsync`.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::Connection;

use crate::bench::Bench;
use crate::cluster::{Cluster, Preloaded};
use crate::fsync::{self, Fsync};
use crate::programs;
use crate::report::SlowDisk;
use crate::store;

/// How much longer a flush takes.
pub const LONGER: Duration = Duration::from_millis(2);

/// The commits, one after the other, that show what the server makes of it.
const COMMITS: u32 = 100;

const SOURCE: &str = include_str!("slow_flush.c");

/// A server on such a disk.
pub struct SlowServer {
    /// Runs for as long as this lives.
    _cluster: Cluster,
    pub bench: Bench,
    pub disk: SlowDisk,
}

/// Why there is none on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSlowDisk(pub String);

/// Looks for what it needs: Linux's dynamic linker and a C compiler.
pub async fn build() -> anyhow::Result<Result<Vec<u8>, NoSlowDisk>> {
    let no = |why: &str| Ok(Err(NoSlowDisk(why.to_owned())));
    if !cfg!(target_os = "linux") {
        return no("LD_PRELOAD is Linux's");
    }
    if Command::new("cc").arg("--version").output().is_err() {
        return no("there is no C compiler (cc)");
    }
    let folder = tempfile::tempdir()?;
    let (source, library) = (folder.path().join("s.c"), folder.path().join("s.so"));
    std::fs::write(&source, SOURCE)?;
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([&library, &source])
        .arg("-ldl");
    programs::output(&mut compile).await?;
    Ok(Ok(std::fs::read(library)?))
}

/// Starts a server on it, and measures how many flushes and commits a second it makes. `measured`: the flushes of an earlier one.
pub async fn start(
    bench: &Bench,
    library: &[u8],
    measured: Option<Fsync>,
) -> anyhow::Result<SlowServer> {
    let preloaded = Preloaded {
        library: library.to_vec(),
        variable: ("PAYONCE_BENCH_FLUSH_US", LONGER.as_micros().to_string()),
    };
    let cluster = Cluster::start(bench, Some(preloaded)).await?;
    let bench = bench.on(cluster.open().await?);
    let fsync = match measured {
        Some(fsync) => fsync,
        None => {
            let (program, folder) = (cluster.program("pg_test_fsync")?, cluster.folder());
            let method = &bench.server.settings.wal_sync_method;
            fsync::measure_in(folder, program, method).await?
        }
    };
    let commits_per_second = commits_per_second(&bench).await?;
    check(&fsync, commits_per_second)?;
    Ok(SlowServer {
        disk: SlowDisk {
            longer_ms: LONGER.as_secs_f64() * 1e3,
            fsync,
            commits_per_second,
        },
        _cluster: cluster,
        bench,
    })
}

/// Of one connection that waits for each.
async fn commits_per_second(bench: &Bench) -> anyhow::Result<f64> {
    let database = bench.server.create("flushes").await?;
    let mut connection = database.connect().await?;
    let run =
        async |connection: &mut _, sql: &str| store::execute(connection, sql.to_owned()).await;
    run(&mut connection, "create table flushes (number int)").await?;
    let began = Instant::now();
    for _ in 0..COMMITS {
        run(&mut connection, "insert into flushes values (1)").await?;
    }
    let took = began.elapsed();
    connection.close().await?;
    bench.server.remove(&database).await?;
    Ok(f64::from(COMMITS) / took.as_secs_f64())
}

/// The library must have been loaded, by `pg_test_fsync` and by the server.
fn check(fsync: &Fsync, commits_per_second: f64) -> anyhow::Result<()> {
    let most = 1.0 / LONGER.as_secs_f64();
    let rate = fsync
        .server_rate()
        .context("the server's way to flush was not measured")?;
    ensure!(
        rate <= most && commits_per_second <= most,
        "the slow disk is not slow: {rate:.0} flushes and {commits_per_second:.0} commits a second"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_not_slow_is_refused() {
        let fsync = |rate| Fsync {
            server_method: "fdatasync".to_owned(),
            methods: vec![("fdatasync".to_owned(), rate)],
            beside_the_data: true,
        };
        assert!(check(&fsync(480.0), 460.0).is_ok());
        assert!(check(&fsync(9000.0), 460.0).is_err());
        assert!(check(&fsync(480.0), 5000.0).is_err());
        let unknown = Fsync {
            methods: Vec::new(),
            ..fsync(1.0)
        };
        assert!(check(&unknown, 1.0).is_err());
    }
}
