//! Shortages of connections: a task waits for one while lanes keep theirs.
//!
//! The lanes keep connections from group to group. That saves a round trip each time, but starves other tasks if the pool, the role
//! or the server grants only a few connections. So during a shortage no lane keeps one.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, PgPool};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::timeout;

use super::address;
use super::errors::has_sqlstate;

/// How long lanes keep no connection after a shortage was noted.
const LASTS: Duration = Duration::from_secs(60);

/// A pool of at least this size has enough connections for everything, as long as the server grants them.
pub(crate) const AMPLE: u32 = 10;

/// How long the server may take to grant or refuse a further connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// By database and role, because the limits are theirs.
static SHORTAGES: LazyLock<Mutex<HashMap<String, Shortage>>> = LazyLock::new(Mutex::default);

static NOTED: Notify = Notify::const_new();

#[derive(Default)]
struct Shortage {
    noted: Option<Instant>,
    is_probed: bool,
}

fn shortages() -> MutexGuard<'static, HashMap<String, Shortage>> {
    SHORTAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The database and the role that are short of connections.
pub(crate) fn subject(pool: &PgPool) -> String {
    address::describe(&pool.connect_options())
}

/// Called when a task has waited for a connection for longer than opening one takes. Notes a shortage if the pool is small, or if
/// the server grants no more connections.
pub(super) fn suspect(pool: &PgPool) {
    let subject = subject(pool);
    if pool.options().get_max_connections() < AMPLE {
        note(&subject);
        return;
    }
    // One check at a time.
    let was_probed = std::mem::replace(
        &mut shortages().entry(subject.clone()).or_default().is_probed,
        true,
    );
    if was_probed {
        return;
    }
    let pool = pool.clone();
    tokio::spawn(async move {
        let probe = timeout(PROBE_TIMEOUT, pool.connect_options().connect()).await;
        shortages().entry(subject.clone()).or_default().is_probed = false;
        match probe {
            Ok(Ok(connection)) => drop(timeout(PROBE_TIMEOUT, connection.close()).await),
            Ok(Err(error)) if is_refused_for_number(&error) => {
                tracing::warn!(%error, "the server grants no further connection; none is kept for now");
                note(&subject);
            }
            Ok(Err(_)) | Err(_) => {}
        }
    });
}

/// 53300: too many connections, of the role, the database or the server.
fn is_refused_for_number(error: &sqlx::Error) -> bool {
    has_sqlstate(error, &["53300"])
}

fn note(subject: &str) {
    shortages().entry(subject.to_owned()).or_default().noted = Some(Instant::now());
    NOTED.notify_waiters();
}

/// True for a minute after a shortage was noted.
pub(crate) fn is_on(subject: &str) -> bool {
    let noted = shortages().get(subject).and_then(|shortage| shortage.noted);
    noted.is_some_and(|noted| noted.elapsed() < LASTS)
}

/// Returns when the next shortage is noted, of any database.
pub(crate) fn begins() -> Notified<'static> {
    NOTED.notified()
}
