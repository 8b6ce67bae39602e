//! A server is a `payonce serve` process on its own port.

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

/// Maximum time until a server listens. It usually takes a fraction of this.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Maximum time until a killed process has ended. It usually takes a fraction of this.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// The settings of a server.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    key_ttl: &'static str,
    gateway_latency: &'static str,
}

impl Terms {
    /// The service's default. A card network takes 100 ms on a good day.
    pub(super) const DEFAULT: Self = Self {
        key_ttl: "24h",
        gateway_latency: "100ms",
    };

    /// Keys that expire within the demonstration, and a gateway that answers before they do.
    pub(super) const SHORT_LIVED: Self = Self {
        key_ttl: "100ms",
        gateway_latency: "0s",
    };
}

/// A running server. Dropping it kills the process.
pub(super) struct Server {
    database: DatabaseArgs,
    terms: Terms,
    /// The same after a restart. With another secret, a retry after the restart would be a mismatch.
    fingerprint_secret: SecretString,
    said: LastLines,
    process: Process,
}

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts a server, and waits until it listens.
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

    /// Its address, which changes with each start.
    pub(super) fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// Its process id, while it runs.
    pub(super) fn process_id(&self) -> Option<u32> {
        self.process.child.id()
    }

    /// The end of its standard error.
    pub(super) fn last_lines(&self) -> Vec<String> {
        self.said.get()
    }

    /// Sends SIGKILL, which leaves it no time to answer its clients or its database. It is no error if the process has ended already.
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

    /// Starts a killed server again: the same settings, a new process.
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
        // Other data in the database is not changed, and neither are its registered secrets.
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

/// Waits until standard error has ended, so that all output has been read; the process ends at the same time.
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

/// Reads all output, because a full pipe would block the server.
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
            // An error means that the address is no longer awaited.
            listening.send(address).ok();
        }
    }
}

/// The address in the line that a server logs when it listens.
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
