//! How long and how much a connection may ask of a worker: a client that sends a byte now and then, or opens connections
//! and says nothing, costs the others nothing.

use std::time::Duration;

/// The limits of a connection. A head has at most 128 KiB and 96 headers, which are actix-web's own limits (431), and a body
/// 64 KiB (413).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A connection's first request line and headers have to be there within this; otherwise 408. actix-web has no such limit
    /// for the later ones of a connection.
    pub head_timeout: Duration,
    /// Its body has to be there within this, from its head on; otherwise 408.
    pub body_timeout: Duration,
    /// An idle connection is kept for this long.
    pub keep_alive: Duration,
    /// A connection is closed whose peer has taken nothing of an answer for this long. Until then at most 48 KiB of answers wait for
    /// it in the process, and more in the system's buffer.
    pub unread_timeout: Duration,
    /// So many connections a worker takes; there are as many workers as processors. More wait in the system's queue.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A head comes in one packet or two: this is many retransmissions.
            head_timeout: Duration::from_secs(10),
            // 64 KiB in this time are 6.5 KB/s, which the poorest line has.
            body_timeout: Duration::from_secs(10),
            // Longer than a proxy's pool usually does, so that it is the proxy that closes, and never while it sends.
            keep_alive: Duration::from_secs(75),
            // As long as a peer may be without a network.
            unread_timeout: Duration::from_secs(30),
            // Each costs a file and some buffers, whether it is used or not. With a few workers this is below the limit of
            // open files under systemd and Docker, and far above what a proxy in front opens.
            max_connections: 10_000,
        }
    }
}
