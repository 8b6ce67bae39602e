//! A shortage: somebody waits for a connection while others keep theirs.
//!
//! The lanes keep connections from group to group. That saves a round trip each time, and starves everybody else where the
//! pool, the role or the server grants only a few connections. So while there is a shortage, nobody keeps one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// For how long nobody keeps a connection after a shortage was noted.
const LASTS: Duration = Duration::from_secs(60);

/// One for the whole process: its pools share the server's limits.
static SHORTAGE: Shortage = Shortage {
    last: Mutex::new(None),
    noted: Notify::const_new(),
};

struct Shortage {
    last: Mutex<Option<Instant>>,
    noted: Notify,
}

/// Notes that somebody waits for a connection.
pub(super) fn note() {
    *SHORTAGE.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    SHORTAGE.noted.notify_waiters();
}

/// True for a minute after a shortage was noted.
pub(crate) fn is_on() -> bool {
    let last = *SHORTAGE.last.lock().unwrap_or_else(PoisonError::into_inner);
    last.is_some_and(|last| last.elapsed() < LASTS)
}

/// Ends when the next shortage is noted, counted from this call.
pub(crate) fn begins() -> Notified<'static> {
    SHORTAGE.noted.notified()
}
