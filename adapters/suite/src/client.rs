//! A client that sees each byte of an answer.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A test that hangs ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A request to be sent.
#[derive(Clone)]
pub struct Call {
    address: SocketAddr,
    head: String,
    has_length: bool,
    body: Vec<u8>,
}

impl Call {
    /// A request without headers of its own.
    pub fn new(address: SocketAddr, method: &str, path: &str) -> Self {
        Self {
            address,
            head: format!("{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n"),
            has_length: false,
            body: Vec::new(),
        }
    }

    /// Sends it to another node.
    #[must_use]
    pub fn to(mut self, node: SocketAddr) -> Self {
        self.address = node;
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Sets the idempotency key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// Announces a length other than the body's.
    #[must_use]
    pub fn length(mut self, length: usize) -> Self {
        self.has_length = true;
        self.header("content-length", &length.to_string())
    }

    /// Sends the body as it is, as chunks.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.has_length = true;
        self.header("transfer-encoding", "chunked")
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a body of JSON.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    /// Sends it, and returns the connection without reading from it.
    pub async fn open(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("the service listens");
        let mut bytes = self.head.clone().into_bytes();
        if !self.has_length {
            bytes.extend(format!("content-length: {}\r\n", self.body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        stream.write_all(&bytes).await.expect("sent");
        stream
    }

    /// Sends it, and reads the answer to its end.
    pub async fn send(&self) -> Reply {
        self.try_send().await.expect("an answer")
    }

    /// Sends it. Returns `None` if the connection ends before the answer does.
    pub async fn try_send(&self) -> Option<Reply> {
        let mut stream = self.open().await;
        let mut bytes = Vec::new();
        let read = async {
            // A service that refuses a body may leave the connection open for what is still to come of it.
            while !is_whole(&bytes, self.head.starts_with("HEAD")) {
                if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                    return None;
                }
            }
            Some(Reply::parse(&bytes))
        };
        timeout(PATIENCE, read).await.expect("an answer in time")
    }

    /// Sends it again and again, until the first one's answer is there or it is the first one itself.
    pub async fn send_until_answered(&self) -> Reply {
        let answered = async {
            loop {
                let answer = self.send().await;
                if answer.status != 409 {
                    return answer;
                }
            }
        };
        timeout(PATIENCE, answered)
            .await
            .expect("an answer in time")
    }
}

/// Whether nothing of an answer is still to come.
fn is_whole(bytes: &[u8], is_head: bool) -> bool {
    let Some(end) = bytes.windows(4).position(|at| at == b"\r\n\r\n") else {
        return false;
    };
    let reply = Reply::parse_head(&bytes[..end]);
    let body = &bytes[end + 4..];
    let length = reply
        .header("content-length")
        .and_then(|length| length.parse().ok());
    match length {
        _ if is_head => true,
        Some(length) => body.len() >= length,
        None if reply.header("transfer-encoding") == Some("chunked") => {
            body.ends_with(b"0\r\n\r\n")
        }
        None => false,
    }
}

/// Hangs up at once, so that the service sees it whether or not it reads.
pub(crate) fn hang_up(stream: TcpStream) {
    stream.set_zero_linger().expect("a socket");
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|at| at == b"\r\n\r\n")
            .expect("a head");
        let mut reply = Self::parse_head(&bytes[..end]);
        reply.body = bytes[end + 4..].to_vec();
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.body = dechunk(&reply.body);
        }
        reply
    }

    fn parse_head(head: &[u8]) -> Self {
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Self {
            status: status
                .and_then(|status| status.parse().ok())
                .expect("a status"),
            headers: headers.collect(),
            body: Vec::new(),
        }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it is a replay.
    pub fn is_replay(&self) -> bool {
        self.header("idempotent-replayed") == Some("true")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    /// The code of a problem.
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        self.json()["code"].as_str().expect("a code").to_owned()
    }

    /// The answer without what is set for each message.
    pub fn lasting(&self) -> Self {
        let of_the_message = ["date", "connection", "idempotent-replayed"];
        let headers = self
            .headers
            .iter()
            .filter(|(name, _)| !of_the_message.contains(&name.as_str()));
        let mut headers: Vec<_> = headers.cloned().collect();
        headers.sort();
        Self {
            headers,
            ..self.clone()
        }
    }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|at| at == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        body.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
    body
}
