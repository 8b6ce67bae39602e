//! As much of HTTP/1.1 as a gateway's clients speak: requests with a Content-Length, connections kept alive.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::reply::Reply;

/// More than any request of Stripe's API has.
const MAX_HEADERS: usize = 64;
const MAX_REQUEST_BYTES: usize = 256 * 1024;

/// A request, read to its end.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    query: String,
    body: String,
    pub(super) bearer: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) version: Option<String>,
    /// The connected account that it is made for; empty for the key's own.
    pub(super) account: String,
    pub(super) keep_alive: bool,
}

impl Request {
    /// The form-encoded parameters: a POST's body, anything else's query.
    pub(super) fn parameters(&self) -> &str {
        if self.method == "POST" {
            &self.body
        } else {
            &self.query
        }
    }

    /// The key under which the outcome is stored, each account's apart. Stripe looks at it only for POST.
    pub(super) fn execution_key(&self) -> Option<String> {
        let key = self.idempotency_key.as_deref();
        let key = key.filter(|_| self.method == "POST")?;
        Some(format!("{key}{}", self.account))
    }
}

/// Reads the next request. Returns `None` if the client has closed the connection.
///
/// `buffer` keeps what was read beyond the request.
pub(super) async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    loop {
        if let Some((request, length)) = parse(buffer)? {
            buffer.drain(..length);
            return Ok(Some(request));
        }
        if buffer.len() > MAX_REQUEST_BYTES {
            return Err(malformed("too large"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The request at the front of the buffer and its length, or `None` while it is incomplete.
fn parse(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_length) = head.parse(buffer).map_err(io::Error::other)?
    else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    if header("Transfer-Encoding").is_some() {
        return Err(malformed("a chunked body"));
    }
    let body_length = match header("Content-Length") {
        Some(length) => length.parse().map_err(io::Error::other)?,
        None => 0,
    };
    let Some(body) = buffer[head_length..].get(..body_length) else {
        return Ok(None);
    };
    let (path, query) = head
        .path
        .map(|target| target.split_once('?').unwrap_or((target, "")))
        .unwrap_or_default();
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: String::from_utf8(body.to_vec()).map_err(io::Error::other)?,
        bearer: header("Authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(str::to_owned),
        idempotency_key: header("Idempotency-Key").map(str::to_owned),
        version: header("Stripe-Version").map(str::to_owned),
        account: header("Stripe-Account").unwrap_or_default().to_owned(),
        keep_alive: !header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
    };
    Ok(Some((request, head_length + body_length)))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the test gateway does not read {what}"),
    )
}

pub(super) async fn write_reply(
    stream: &mut TcpStream,
    reply: &Reply,
    keep_alive: bool,
) -> io::Result<()> {
    let mut message = format!("HTTP/1.1 {} {}\r\n", reply.status, reason(reply.status));
    let length = reply.body.len().to_string();
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let own = [
        ("Content-Type", "application/json"),
        ("Content-Length", length.as_str()),
        ("Connection", connection),
    ];
    let headers = own.into_iter().chain(
        reply
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str())),
    );
    for (name, value) in headers {
        message.push_str(&format!("{name}: {value}\r\n"));
    }
    message.push_str("\r\n");
    let mut message = message.into_bytes();
    message.extend_from_slice(&reply.body);
    stream.write_all(&message).await
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        429 => "Too Many Requests",
        _ => "Internal Server Error",
    }
}
