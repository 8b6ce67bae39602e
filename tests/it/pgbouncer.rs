//! Debian's PgBouncer in between: in session mode payonce works, with its time-outs; in transaction mode it is refused.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use payonce::database::{pool_options, session_options};
use payonce::idempotency::{Engine, FingerprintSecrets, IdempotencyConfig, UnfitPool};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use crate::support::process::{error_line, program, run};
use crate::support::service::{Service, Setup};

/// Far longer than any machine takes to start it.
const PATIENCE: Duration = Duration::from_secs(60);

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A pooler in front of the test's database, set up as docs/OPERATIONS.md says, but for its mode.
struct PgBouncer {
    process: Child,
    options: PgConnectOptions,
    _files: tempfile::TempDir,
}

impl PgBouncer {
    /// Returns `None` where the program is missing.
    async fn start(database: &PgConnectOptions, pool_mode: &str) -> Option<Self> {
        if !std::path::Path::new(PROGRAM).exists() {
            crate::support::skipped::skip(
                "PgBouncer in front of the database: apt-get install pgbouncer",
            );
            return None;
        }
        let port = crate::support::free_port();
        let files = tempfile::tempdir().expect("a folder");
        // The pooler gives up root's rights before it reads its files.
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(files.path(), readable).expect("readable");
        let file = files.path().join("pgbouncer.ini");
        let (host, server_port) = (database.get_host(), database.get_port());
        let (name, user) = (
            database.get_database().expect("a database"),
            database.get_username(),
        );
        let url = database.to_url_lossy();
        let password = url.password().expect("the test's password");
        let text = format!(
            "[databases]\n{name} = host={host} port={server_port} user={user} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {pool_mode}\nignore_startup_parameters = extra_float_digits,options\n"
        );
        std::fs::write(&file, text).expect("written");
        let mut command = Command::new(PROGRAM);
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "postgres"]);
        }
        let process = command
            .arg("-q")
            .arg(&file)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the pooler starts");
        let options = database
            .clone()
            .host("127.0.0.1")
            .port(port)
            .ssl_mode(sqlx::postgres::PgSslMode::Disable);
        let mut pooler = Self {
            process,
            options,
            _files: files,
        };
        pooler.until_it_answers().await;
        Some(pooler)
    }

    async fn until_it_answers(&mut self) {
        let began = Instant::now();
        loop {
            let error = match self.options.connect().await {
                Ok(connection) => return connection.close().await.expect("closed"),
                Err(error) => error,
            };
            let ended = self.process.try_wait().expect("a process");
            assert!(ended.is_none(), "the pooler ended: {ended:?}");
            assert!(began.elapsed() < PATIENCE, "{error}");
            crate::support::pause().await;
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // A test that failed leaves none behind.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn connect(options: PgConnectOptions) -> Result<Engine, UnfitPool> {
    let secrets = FingerprintSecrets::new("secret");
    Engine::connect(options, 2, IdempotencyConfig::default(), &secrets).await
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_pooler_of_sessions_keeps_all_that_the_engine_needs(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let Some(pooler) = PgBouncer::start(&db, "session").await else {
        return;
    };
    let engine = connect(pooler.options.clone()).await.expect("it is fit");
    let time_out: String = sqlx::query_scalar("select current_setting('statement_timeout')")
        .fetch_one(engine.pool())
        .await
        .expect("a session");
    assert_eq!(time_out, "5s", "what the pooler dropped is set again");
    engine.pool().close().await;

    let service = Service::start_with(&pooler.options, Setup::default()).await;
    let acme = service.merchant("acme").await;
    let first = acme.pay("10").key("k").send().await;
    let again = acme.pay("10").key("k").send().await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (201, 201));
    assert_eq!(first.bytes, again.bytes);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn time_outs_that_a_pooler_drops_in_silence_are_noticed(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let Some(pooler) = PgBouncer::start(&db, "session").await else {
        return;
    };
    // A pool of the user's own, which asks for the settings at its start only.
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect_with(session_options(pooler.options.clone()))
        .await
        .expect("connected");
    let secrets = FingerprintSecrets::new("secret");
    let started = Engine::start(pool.clone(), IdempotencyConfig::default(), &secrets).await;
    let refused = started
        .map(drop)
        .expect_err("its sessions have no time-out");
    assert!(
        matches!(
            refused,
            UnfitPool::Setting {
                setting: "statement_timeout",
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("alter role"), "{refused}");
    pool.close().await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_pooler_of_transactions_is_refused(_: PgPoolOptions, db: PgConnectOptions) {
    let Some(pooler) = PgBouncer::start(&db, "transaction").await else {
        return;
    };
    let refused = connect(pooler.options.clone()).await.map(drop);
    let refused = refused.expect_err("its sessions are shared");
    assert!(matches!(refused, UnfitPool::SharesSessions), "{refused:?}");

    let mut serve = program("payonce", &pooler.options);
    let ended = run(serve.args(["migrate"]));
    assert!(!ended.status.success());
    let line = error_line(&ended);
    assert!(line.contains("pool_mode = session"), "{line}");
}

/// The same with a pool whose sessions were set up before: what is checked is the way to the server, not the settings.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_pooler_of_transactions_is_noticed_behind_a_pool_of_ours(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let Some(pooler) = PgBouncer::start(&db, "transaction").await else {
        return;
    };
    let pool = pool_options()
        .max_connections(4)
        .connect_with(pooler.options.clone())
        .await
        .expect("connected");
    let secrets = FingerprintSecrets::new("secret");
    let started = Engine::start(pool.clone(), IdempotencyConfig::default(), &secrets).await;
    assert!(matches!(started.map(drop), Err(UnfitPool::SharesSessions)));
    pool.close().await;
}
