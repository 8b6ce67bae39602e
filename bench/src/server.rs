//! The services under measurement, as processes of their own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Maximum time until a service listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running service. It is killed when it is dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
}

/// A service's address and process.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub socket: SocketAddr,
    /// Unknown for a service that was not started here and cannot be found.
    pub process_id: Option<u32>,
}

impl Server {
    /// Starts a program that says `{"address": …}` on standard error once it listens.
    pub async fn start(command: Command) -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(|| Self::start_blocking(command)).await?
    }

    fn start_blocking(mut command: Command) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let lines = BufReader::new(child.stderr.take().context("no standard error")?).lines();
        let (said, saying) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match address_in(&line) {
                    Some(address) => drop(said.send(Ok(address))),
                    // Its other lines are printed: at this log level they are warnings.
                    None => {
                        eprintln!("{line}");
                        drop(said.send(Err(line)));
                    }
                }
            }
        });
        let mut server = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
        };
        loop {
            match saying.recv_timeout(PATIENCE) {
                Ok(Ok(address)) => {
                    server.address = address;
                    return Ok(server);
                }
                Ok(Err(_)) => {}
                Err(RecvTimeoutError::Timeout) => bail!("a service does not listen"),
                Err(RecvTimeoutError::Disconnected) => bail!("a service ended at once"),
            }
        }
    }

    pub fn address(&self) -> Address {
        Address {
            socket: self.address,
            process_id: Some(self.child.id()),
        }
    }

    /// Stops it gracefully, so that its database connections have reported all their statistics.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(id), Signal::SIGTERM)?;
        let ended = tokio::task::spawn_blocking(move || self.child.wait());
        tokio::time::timeout(PATIENCE, ended)
            .await
            .context("a service does not end")???;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    line["address"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_names_the_address_is_found() {
        let line = r#"{"level":"INFO","message":"listening","address":"127.0.0.1:4711"}"#;
        assert_eq!(address_in(line), Some(([127, 0, 0, 1], 4711).into()));
        for line in ["listening on 127.0.0.1:4711", r#"{"message":"hello"}"#] {
            assert_eq!(address_in(line), None, "{line}");
        }
    }
}
