//! A persistent connection, which sends a request and reads its answer.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::response::{BadResponse, Response, parse};

/// More than any of the variants' answers.
const ROOM: usize = 8 * 1024;

/// A connection with at most one request under way.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// Length of the last answer, which is still at the start of `received`.
    answered: usize,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(ROOM),
            answered: 0,
        })
    }

    /// Sends a request and waits for its whole answer.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Response> {
        self.received.drain(..self.answered);
        self.answered = 0;
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("the service closed the connection before it answered");
            }
            let parsed = parse(&self.received)
                .map_err(|BadResponse(why)| anyhow::anyhow!("an answer cannot be read: {why}"))?;
            if let Some(response) = parsed {
                self.answered = response.length;
                return Ok(response);
            }
        }
    }

    /// The bytes of the last answer: head and body.
    pub fn last_answer(&self) -> &[u8] {
        &self.received[..self.answered]
    }
}
