//! The limits of a connection. A client that sends a byte now and then, or opens connections and sends nothing, must not slow down
//! the others.

use std::time::Duration;

/// The limits of a connection. In addition, a request's head may have at most 128 KiB and 96 headers, which are actix-web's own limits
/// (431), and its body at most 64 KiB (413).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum time until the request line and headers of a connection's first request have arrived; after it, 408. actix-web has no
    /// such limit for later requests.
    pub head_timeout: Duration,
    /// Maximum time from a request's head until its body has arrived; after it, 408.
    pub body_timeout: Duration,
    /// How long an idle connection is kept open.
    pub keep_alive: Duration,
    /// Maximum time without progress in sending an answer; after it, the connection is closed. Until then at most 48 KiB of answers
    /// wait in the process, and more in the system's buffer.
    pub unread_timeout: Duration,
    /// Maximum number of connections of a worker; there are as many workers as processors. Further connections wait in the system's
    /// queue.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A head fits into one or two packets, so this allows for many retransmissions.
            head_timeout: Duration::from_secs(10),
            // 64 KiB in this time are 6.5 KB/s, which even a poor line has.
            body_timeout: Duration::from_secs(10),
            // Longer than a proxy usually keeps idle connections. If the service closed first, it could do so while the proxy sends.
            keep_alive: Duration::from_secs(75),
            // A peer may lose its network for this long.
            unread_timeout: Duration::from_secs(30),
            // Each connection takes a file descriptor and some buffers, whether it is used or not. With a few workers this is below
            // the limit of open files under systemd and Docker, and far above what a proxy in front opens.
            max_connections: 10_000,
        }
    }
}
