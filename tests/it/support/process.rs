//! The programs as processes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use super::gateway::SECRET_KEY;
use super::service::{Merchant, client};

/// Long enough for a loaded machine; it is not reached if all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// `payonce` or `payonce-cleanup` with a database, to be run to its end.
pub fn program(name: &str, database: &PgConnectOptions) -> Command {
    let path = match name {
        "payonce" => env!("CARGO_BIN_EXE_payonce"),
        _ => env!("CARGO_BIN_EXE_payonce-cleanup"),
    };
    let mut command = Command::new(path);
    let is_setting = |name: &str| name.starts_with("PAYONCE_") || name.starts_with("OTEL_");
    for (variable, _) in std::env::vars().filter(|(name, _)| is_setting(name)) {
        command.env_remove(variable);
    }
    command.env("DATABASE_URL", database.to_url_lossy().as_str());
    command
}

/// Runs a program to its end. A program that serves instead of refusing to start is killed.
pub fn run(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("the program runs");
    let id = i32::try_from(child.id()).expect("a process id");
    let (ended, end) = mpsc::channel::<()>();
    let watching = std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().expect("its output");
    drop(ended);
    drop(watching.join());
    output
}

/// The database's URL in the form of PostgreSQL's own programs.
pub fn plain_url(database: &PgConnectOptions) -> String {
    let mut url = database.to_url_lossy();
    url.set_query(None);
    url.to_string()
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON on standard output")
}

/// One line on standard error.
pub fn error_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

/// Returns whether a process is stopped, as after SIGSTOP.
#[cfg(feature = "failpoints")]
pub fn is_stopped(id: u32) -> bool {
    // "The state is the first word after the name, which stands in brackets" (proc(5)).
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// Creates a merchant with the command line. It sends requests to a server, or to a proxy in front of it.
pub fn merchant(database: &PgConnectOptions, url: &str, id: &str) -> Merchant {
    let created = run(program("payonce", database).args(["merchants", "create", id]));
    assert!(created.status.success(), "{created:?}");
    Merchant {
        url: url.to_owned(),
        api_key: json(&created)["apiKey"].as_str().expect("a key").to_owned(),
        client: client(),
    }
}

/// A server process. It is killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server that uses the test's gateway.
    pub fn start_on(gateway: &str, database: &PgConnectOptions, settings: &[(&str, &str)]) -> Self {
        let stripe = [
            ("PAYONCE_GATEWAY", "stripe"),
            ("PAYONCE_STRIPE_API_BASE", gateway),
            ("PAYONCE_STRIPE_SECRET_KEY", SECRET_KEY),
        ];
        Self::start(database, &[&stripe, settings].concat())
    }

    pub fn start(database: &PgConnectOptions, settings: &[(&str, &str)]) -> Self {
        Self::start_with(database, settings, &[])
    }

    /// With further arguments.
    pub fn start_with(
        database: &PgConnectOptions,
        settings: &[(&str, &str)],
        arguments: &[&str],
    ) -> Self {
        let mut command = program("payonce", database);
        command
            .arg("serve")
            .args(arguments)
            .env("PAYONCE_LISTEN", "127.0.0.1:0")
            .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests")
            .env("PAYONCE_LOG_FORMAT", "json")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server starts");
        let lines = BufReader::new(child.stderr.take().expect("its standard error")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let (address, listening) = mpsc::channel();
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(at) = serde_json::from_str::<Value>(&line)
                    .ok()
                    .and_then(|line| line["address"].as_str().map(str::to_owned))
                {
                    drop(address.send(at));
                }
                let mut log = kept.lock().expect("the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        match listening.recv_timeout(PATIENCE) {
            Ok(address) => Self {
                child,
                url: format!("http://{address}"),
                log,
            },
            Err(_) => panic!(
                "the server does not listen: {}",
                log.lock().expect("the log")
            ),
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Waits until the log contains this. Its lines arrive through a pipe, in order.
    pub async fn until_logged(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "no {text} in {}", self.log());
            super::pause().await;
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("the signal is sent");
    }

    /// Returns whether it is stopped, as after SIGSTOP.
    #[cfg(feature = "failpoints")]
    pub fn is_stopped(&self) -> bool {
        is_stopped(self.child.id())
    }

    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            super::pause().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
