//! PostgreSQL servers of the benchmark's own, beside the given one and with its settings: a pair with a synchronous standby, and a server
//! whose disk takes longer for a flush. They are thrown away in the end.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sqlx::Connection;
use tempfile::TempDir;

use crate::bench::Bench;
use crate::database::DatabaseServer;
use crate::process::postmaster;
use crate::programs::{self, Programs};
use crate::store::{self, ServerSettings};

/// As whom PostgreSQL runs where it would be root, which it refuses.
const SERVER_USER: &str = "postgres";

/// By which `synchronous_standby_names` calls it.
const STANDBY: &str = "standby";

/// The name of what is preloaded, in the cluster's folder.
const LIBRARY: &str = "preloaded.so";

/// A standby follows within this time, or does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a port is looked for that is still free when the server takes it.
const TRIES: u32 = 5;

/// A server that runs. It is stopped and deleted when dropped.
pub struct Cluster {
    folder: TempDir,
    programs: Programs,
    settings: ServerSettings,
    password: String,
    port: u16,
    preloaded: Option<Preloaded>,
}

/// A library that is loaded into every process of a server, and what it reads from the environment.
#[derive(Clone, Debug)]
pub struct Preloaded {
    /// As the linker made it.
    pub library: Vec<u8>,
    pub variable: (&'static str, String),
}

/// A server and the standby that its commits wait for, on one machine.
pub struct Pair {
    primary: Cluster,
    standby: Cluster,
}

impl Cluster {
    /// A new server beside the one that is measured, on the same disk where that may be.
    pub async fn start(bench: &Bench, preloaded: Option<Preloaded>) -> anyhow::Result<Self> {
        let mut cluster = Self::without_data(bench, preloaded).await?;
        let given = cluster.folder.path().join("password");
        write_for_server(&given, cluster.password.as_bytes())?;
        let mut initdb = cluster.program("initdb")?;
        initdb
            .args(["--username=payonce", "--auth=scram-sha-256", "--no-sync"])
            .args(["--locale=C", "--encoding=UTF8", "--no-instructions"])
            .arg(format!("--pwfile={}", given.display()))
            .arg("-D")
            .arg(cluster.data());
        programs::output(&mut initdb).await?;
        cluster.up("").await?;
        Ok(cluster)
    }

    /// A copy of this one that follows it.
    async fn standby(&self, bench: &Bench) -> anyhow::Result<Self> {
        let mut standby = Self::without_data(bench, self.preloaded.clone()).await?;
        standby.password.clone_from(&self.password);
        let mut backup = standby.program("pg_basebackup")?;
        backup
            .env("PGPASSWORD", &self.password)
            .args(["--host=127.0.0.1", "--username=payonce", "--no-sync"])
            .arg(format!("--port={}", self.port))
            .args(["--write-recovery-conf", "--wal-method=stream"])
            .args(["--checkpoint=fast", "-D"])
            .arg(standby.data());
        programs::output(&mut backup).await?;
        standby.up(&format!("-c cluster_name={STANDBY}")).await?;
        Ok(standby)
    }

    async fn without_data(bench: &Bench, preloaded: Option<Preloaded>) -> anyhow::Result<Self> {
        let beside = bench.server.data_directory().await;
        let beside = beside.as_deref().and_then(Path::parent);
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("payonce-bench-");
        // Not /tmp, which may lie in memory.
        let folder = match beside.and_then(|beside| builder.tempdir_in(beside).ok()) {
            Some(folder) => folder,
            None => builder.tempdir_in("/var/tmp")?,
        };
        if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name(SERVER_USER)?;
            let user = user.with_context(|| format!("there is no user {SERVER_USER}"))?;
            nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid))?;
        }
        if let Some(Preloaded { library, .. }) = &preloaded {
            write_for_server(&folder.path().join(LIBRARY), library)?;
        }
        Ok(Self {
            folder,
            programs: bench.programs.clone(),
            settings: bench.server.settings.clone(),
            password: uuid::Uuid::new_v4().simple().to_string(),
            port: 0,
            preloaded,
        })
    }

    /// Opens it as a server to measure on.
    pub async fn open(&self) -> anyhow::Result<DatabaseServer> {
        let Self { password, port, .. } = self;
        let url = format!("postgres://payonce:{password}@127.0.0.1:{port}/postgres");
        DatabaseServer::open(&url).await
    }

    /// A folder that the server's user can read.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// One of PostgreSQL's programs, as the user that the server may run as, with what is preloaded.
    pub fn program(&self, name: &str) -> anyhow::Result<Command> {
        let program = self.programs.postgres(name)?;
        let mut command = as_server(program.get_program().as_ref());
        if let Some(Preloaded { variable, .. }) = &self.preloaded {
            command.env("LD_PRELOAD", self.folder.path().join(LIBRARY));
            command.env(variable.0, &variable.1);
        }
        // PostgreSQL's own variables would lead its programs to another server.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        command.current_dir("/");
        Ok(command)
    }

    async fn up(&mut self, further: &str) -> anyhow::Result<()> {
        for attempt in 1.. {
            self.port = free_port()?;
            let ServerSettings {
                shared_buffers,
                max_wal_size,
                max_connections,
                wal_sync_method,
                ..
            } = &self.settings;
            let mut start = self.program("pg_ctl")?;
            start
                .args(["start", "--silent", "--wait", "--timeout=60", "-D"])
                .arg(self.data())
                .arg("--log")
                .arg(self.folder.path().join("log"))
                .arg("--options")
                .arg(format!(
                    "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c timezone=UTC \
                     -c shared_buffers={shared_buffers} -c max_wal_size={max_wal_size} \
                     -c max_connections={max_connections} -c wal_sync_method={wal_sync_method} {further}",
                    self.port
                ));
            match run(&mut start).await {
                Ok(()) => return Ok(()),
                Err(_) if attempt < TRIES => {}
                Err(error) => {
                    let log = std::fs::read_to_string(self.folder.path().join("log"));
                    let log = log.unwrap_or_default();
                    bail!("PostgreSQL does not start: {error}: {log}");
                }
            }
        }
        Ok(())
    }

    fn stop(&self) -> anyhow::Result<()> {
        let mut stop = self.program("pg_ctl")?;
        stop.args(["stop", "--silent", "--wait", "--mode=immediate", "-D"])
            .arg(self.data());
        let status = stop.stdin(Stdio::null()).status()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if postmaster(&self.data()).is_some()
            && let Err(error) = self.stop()
        {
            eprintln!("payonce-bench: a server of the benchmark's own does not stop: {error}");
        }
    }
}

impl Pair {
    /// Returns once commits wait for the standby.
    pub async fn start(bench: &Bench) -> anyhow::Result<Self> {
        let primary = Cluster::start(bench, None).await?;
        // The copy is made first: it would wait for a standby of its own otherwise.
        let standby = primary.standby(bench).await?;
        let server = primary.open().await?;
        let mut connection = server.connect().await?;
        store::wait_for_standby(&mut connection, STANDBY).await?;
        let deadline = Instant::now() + PATIENCE;
        while !store::has_synchronous_standby(&mut connection).await? {
            ensure!(Instant::now() < deadline, "the standby does not follow");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        connection.close().await?;
        Ok(Self { primary, standby })
    }

    /// Opens the primary. The standby's processor time counts as PostgreSQL's.
    pub async fn open(&self) -> anyhow::Result<DatabaseServer> {
        let mut server = self.primary.open().await?;
        server.postmasters.extend(postmaster(&self.standby.data()));
        Ok(server)
    }
}

/// A program run by the user that PostgreSQL may run as.
fn as_server(program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={SERVER_USER}"))
        .arg(format!("--regid={SERVER_USER}"))
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

/// A file that only the server's user can read.
fn write_for_server(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name(SERVER_USER)?;
        let user = user.with_context(|| format!("there is no user {SERVER_USER}"))?;
        nix::unistd::chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Without a pipe for its output: the server that it starts would keep it open.
async fn run(command: &mut Command) -> anyhow::Result<()> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut command = std::mem::replace(command, Command::new(""));
    let ran = tokio::task::spawn_blocking(move || command.status());
    let status = ran.await??;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
