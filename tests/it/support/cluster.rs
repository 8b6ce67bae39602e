//! A PostgreSQL of a test's own, and PostgreSQL's programs.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::PgConnectOptions;

use super::free_port;
use super::process::run;

/// How many ports are tried for a new server.
const PORTS: u32 = 4;

/// A PostgreSQL of the test's own, which can be stopped.
pub struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    is_killed: AtomicBool,
}

impl Cluster {
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// With further settings: `-c name=value …`.
    pub fn start_with(settings: &str) -> Self {
        let mut cluster = Self::without_data();
        let data = cluster.data();
        cluster.command(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync"],
        );
        cluster.up_on_a_free_port(settings);
        cluster
    }

    /// A copy of a primary, which follows it and goes by this name.
    pub fn standby_of(primary: &Self, name: &str) -> Self {
        let mut cluster = Self::without_data();
        let (data, port) = (cluster.data(), primary.port.to_string());
        let from = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        let how = ["-D", &data, "-R", "-X", "stream", "-c", "fast", "--no-sync"];
        cluster.command("pg_basebackup", &[&from[..], &how].concat());
        cluster.up_on_a_free_port(&format!("-c cluster_name={name}"));
        cluster
    }

    fn without_data() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("payonce-it-")
            .tempdir_in("/tmp")
            .expect("a folder");
        let cluster = Self {
            folder,
            port: free_port(),
            is_killed: AtomicBool::new(false),
        };
        if nix::unistd::geteuid().is_root() {
            // PostgreSQL refuses root.
            assert!(
                run(Command::new("chown")
                    .arg("postgres")
                    .arg(cluster.folder.path()))
                .status
                .success()
            );
        }
        cluster
    }

    /// Promotes a standby.
    pub fn promote(&self) {
        self.command("pg_ctl", &["-D", &self.data(), "-w", "promote"]);
    }

    /// All of its processes at once, as when its machine dies.
    pub fn kill(&self) {
        self.is_killed.store(true, Ordering::Relaxed);
        let pid_file = format!("{}/postmaster.pid", self.data());
        let pid_file = std::fs::read_to_string(pid_file).expect("it runs");
        let postmaster = pid_file.lines().next().expect("a process id");
        let children = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = std::fs::read_to_string(children).expect("its processes");
        for pid in std::iter::once(postmaster).chain(children.split_whitespace()) {
            let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a process id"));
            // It may have ended already.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }

    fn data(&self) -> String {
        self.folder
            .path()
            .join("data")
            .to_string_lossy()
            .into_owned()
    }

    fn command(&self, name: &str, arguments: &[&str]) {
        assert!(self.succeeds(name, arguments), "{name} {arguments:?}");
    }

    fn succeeds(&self, name: &str, arguments: &[&str]) -> bool {
        let path = postgres_program(name);
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(path);
            command
        } else {
            Command::new(path)
        };
        let log = self.folder.path().join("output");
        let log = std::fs::File::create(log).expect("a log");
        let status = command
            .args(arguments)
            .current_dir("/tmp")
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .status();
        status.is_ok_and(|status| status.success())
    }

    pub fn up(&self) {
        self.up_with("");
    }

    pub fn up_with(&self, settings: &str) {
        assert!(self.starts_with(settings), "it does not start: {settings}");
    }

    /// Another process may take a port before the server does.
    fn up_on_a_free_port(&mut self, settings: &str) {
        for _ in 0..PORTS {
            if self.starts_with(settings) {
                return;
            }
            self.port = free_port();
        }
        self.up_with(settings);
    }

    fn starts_with(&self, settings: &str) -> bool {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' {settings}",
            self.port
        );
        self.succeeds(
            "pg_ctl",
            &[
                "-D",
                &self.data(),
                "-w",
                "-l",
                &self.folder.path().join("data/log").to_string_lossy(),
                "-o",
                &options,
                "start",
            ],
        )
    }

    /// After its next start it is a standby without a primary, which accepts no writes.
    pub fn make_standby(&self) {
        std::fs::write(self.folder.path().join("data/standby.signal"), "").expect("a file");
    }

    pub fn down(&self) {
        self.command(
            "pg_ctl",
            &["-D", &self.data(), "-w", "-m", "immediate", "stop"],
        );
    }

    pub fn options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database("postgres")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_killed.load(Ordering::Relaxed) {
            return;
        }
        drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(
            || self.down(),
        )));
    }
}

/// One of PostgreSQL's programs, from Debian's folder or from with-postgres.
pub fn postgres_program(name: &str) -> PathBuf {
    let given = std::env::var_os("PAYONCE_POSTGRES_BIN").map(PathBuf::from);
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"));
    given
        .into_iter()
        .chain(installed)
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| name.into())
}
