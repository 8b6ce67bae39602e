//! A server is a `payonce serve` process on a port of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::program::{self, LastLines};
use crate::config::DatabaseArgs;

/// A server connects, migrates and listens in a fraction of this.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// The kernel ends a killed process in a fraction of this.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// What a server is started with.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    key_ttl: &'static str,
    gateway_latency: &'static str,
}

impl Terms {
    /// As the service has it: 100 ms are what a card network takes, on a good day.
    pub(super) const DEFAULT: Self = Self {
        key_ttl: "24h",
        gateway_latency: "100ms",
    };

    /// Keys that can be seen to expire. With a gateway that is slower than that, they would before they are answered.
    pub(super) const SHORT_LIVED: Self = Self {
        key_ttl: "100ms",
        gateway_latency: "0s",
    };
}

/// A running server. Dropping it kills the process.
pub(super) struct Server {
    database: DatabaseArgs,
    terms: Terms,
    /// One for all its lives, or a retry after a restart would be another request.
    fingerprint_secret: SecretString,
    said: LastLines,
    process: Process,
}

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts one, and waits until it listens.
    pub(super) async fn start(database: &DatabaseArgs, terms: Terms) -> anyhow::Result<Self> {
        let fingerprint_secret = SecretString::from(Uuid::new_v4().to_string());
        let said = LastLines::default();
        let process = spawn(database, terms, &fingerprint_secret, &said).await?;
        Ok(Self {
            database: database.clone(),
            terms,
            fingerprint_secret,
            said,
            process,
        })
    }

    /// Where it listens; another place after each start.
    pub(super) fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// Its process id, while it lives.
    pub(super) fn process_id(&self) -> Option<u32> {
        self.process.child.id()
    }

    /// What it said last on standard error.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.said.get()
    }

    /// SIGKILL: it has no time for a last word to its clients or its database. Killing a dead one is no error.
    pub(super) async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        let child = &mut self.process.child;
        if child.id().is_some() {
            child.start_kill().context("the server cannot be killed")?;
        }
        timeout(END_PATIENCE, child.wait())
            .await
            .map_err(|_| anyhow!("the server outlives SIGKILL by {END_PATIENCE:?}"))?
            .context("the server's end cannot be awaited")
    }

    /// Starts a killed one again: the same settings, a new process.
    pub(super) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = spawn(
            &self.database,
            self.terms,
            &self.fingerprint_secret,
            &self.said,
        )
        .await?;
        Ok(())
    }
}

async fn spawn(
    database: &DatabaseArgs,
    terms: Terms,
    fingerprint_secret: &SecretString,
    said: &LastLines,
) -> anyhow::Result<Process> {
    let mut child = program::serve(database)?
        .args(["--listen=127.0.0.1:0", "--gateway=simulated"])
        .args(["--log=info", "--log-format=json"])
        // What else is in the database stays as it is, and so do the secrets that sign there.
        .arg("--allow-other-fingerprint-secret")
        .arg(format!("--key-ttl={}", terms.key_ttl))
        .arg(format!(
            "--simulated-gateway-latency={}",
            terms.gateway_latency
        ))
        .env(
            "PAYONCE_FINGERPRINT_SECRET",
            fingerprint_secret.expose_secret(),
        )
        .stderr(Stdio::piped())
        .spawn()
        .context("the server's process cannot be started")?;
    let stderr = child.stderr.take().context("the server has no stderr")?;
    let (listening, address) = oneshot::channel();
    let reader = tokio::spawn(read_log(stderr, said.clone(), listening));
    match timeout(START_PATIENCE, address).await {
        Ok(Ok(address)) => Ok(Process { child, address }),
        Ok(Err(_)) => Err(explain_end(child, reader, said).await),
        Err(_) => bail!(
            "the server does not listen after {START_PATIENCE:?}; it said last:\n{}",
            said.get().join("\n")
        ),
    }
}

/// Its standard error has ended, so that all that it said is read; the process ends with it.
async fn explain_end(mut child: Child, reader: JoinHandle<()>, said: &LastLines) -> anyhow::Error {
    drop(timeout(END_PATIENCE, reader).await);
    let status = match timeout(END_PATIENCE, child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        _ => "no status".to_owned(),
    };
    anyhow!(
        "the server ended ({status}) before it listened; it said last:\n{}",
        said.get().join("\n")
    )
}

/// Reads to the end, whatever comes: a full pipe would stop the server.
async fn read_log(
    log: impl AsyncRead + Unpin,
    said: LastLines,
    listening: oneshot::Sender<SocketAddr>,
) {
    let mut listening = Some(listening);
    let mut lines = BufReader::new(log).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        said.push(&line);
        if let Some(address) = listening_address(&line)
            && let Some(listening) = listening.take()
        {
            // An error says that nobody waits for it any more.
            listening.send(address).ok();
        }
    }
}

/// The address in the line by which a server says that it listens.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line.get("message")? == "listening").then_some(())?;
    line.get("address")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listening_line_tells_the_address() {
        let line = r#"{"level":"INFO","message":"listening","address":"127.0.0.1:4711"}"#;
        assert_eq!(
            listening_address(line),
            Some(SocketAddr::from(([127, 0, 0, 1], 4711)))
        );
        for other in [
            "",
            "payonce: cannot reach the database",
            r#"{"message":"served","address":"127.0.0.1:4711"}"#,
            r#"{"message":"listening"}"#,
            r#"{"message":"listening","address":"somewhere"}"#,
        ] {
            assert_eq!(listening_address(other), None, "{other}");
        }
    }
}
