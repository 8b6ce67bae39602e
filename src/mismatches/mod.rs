//! Notes mismatches for the console: requests that came under a key of another request. The client was told at the time
//! (`idempotency-key-reused`); an operator who helps the merchant wants to see which requests these were.
//!
//! Requests do not wait for the notes. They go into a bounded queue, which drops what does not fit, and one writer puts many into one
//! statement. A request is refused in the same way whether its mismatch is noted or not.

mod metrics;
mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{MissedTickBehavior, interval};

use self::metrics::count_dropped;
pub use self::metrics::describe_metrics;
use crate::idempotency::{Mismatch, ScopedKey};

/// Number of hexadecimal digits of a fingerprint that are kept: as many as the client sees.
const PREFIX_DIGITS: usize = 16;

/// Maximum number of mismatches that wait for the writer, at about 200 bytes each. Further ones are dropped and counted.
const QUEUE: usize = 1024;

/// Maximum number of mismatches in one statement.
const BATCH: usize = 256;

/// Maximum number of different mismatches kept per key: enough to tell one wrong request from a key that is used for everything.
pub const KEPT_PER_KEY: u16 = 5;

/// How long they are kept: longer than a key, so that an operator on Monday sees Friday's.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often old ones are deleted.
const PRUNED_EVERY: Duration = Duration::from_secs(10 * 60);

/// Maximum number of rows that one statement deletes.
const PRUNED_AT_ONCE: i64 = 5000;

/// Maximum number of paths kept per mismatch, and of characters kept per path. Clients choose the names of their metadata.
const CHANGED_PATHS: usize = 20;
const PATH_CHARACTERS: usize = 100;

/// A request that was refused, once or several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedMismatch {
    /// The key.
    pub scope: ScopedKey,
    /// The first 16 hexadecimal digits of the fingerprint of the request that has the key.
    pub expected_prefix: String,
    /// The same digits of the request that was refused.
    pub actual_prefix: String,
    /// The paths of the fields that differ, never values.
    pub changed: Vec<String>,
    /// How often it was refused.
    pub refusals: u64,
    /// When it was refused first, by the database's clock.
    pub first_seen_at: DateTime<Utc>,
    /// When it was refused last, by the database's clock.
    pub last_seen_at: DateTime<Utc>,
}

/// Notes mismatches. It is cheap to clone.
#[derive(Clone)]
pub struct Mismatches {
    queue: Sender<Noted>,
}

/// A mismatch that is waiting to be written.
struct Noted {
    scope: ScopedKey,
    expected_prefix: String,
    actual_prefix: String,
    changed: Vec<String>,
}

/// Two mismatches with the same identity are counted as one.
type Identity = (ScopedKey, String);

impl Mismatches {
    /// Starts the writer, which stops when the last clone has been dropped.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn start(pool: PgPool) -> Self {
        let (queue, noted) = channel(QUEUE);
        tokio::spawn(write_all(pool, noted));
        Self { queue }
    }

    /// Notes a mismatch, or drops it if the queue is full. It never waits.
    pub fn note(&self, scope: &ScopedKey, mismatch: &Mismatch) {
        let prefix = |hash: &str| hash.get(..PREFIX_DIGITS).unwrap_or_default().to_owned();
        let noted = Noted {
            scope: scope.clone(),
            expected_prefix: prefix(&mismatch.expected_hash),
            actual_prefix: prefix(&mismatch.actual_hash),
            changed: shortened(&mismatch.changed),
        };
        if self.queue.try_send(noted).is_err() {
            count_dropped(1);
        }
    }

    /// The mismatches of one key, latest first.
    pub async fn of_key(pool: &PgPool, scope: &ScopedKey) -> sqlx::Result<Vec<NotedMismatch>> {
        store::list_of_key(pool, scope).await
    }

    /// The latest mismatches of all keys, at most `limit`.
    pub async fn latest(pool: &PgPool, limit: u16) -> sqlx::Result<Vec<NotedMismatch>> {
        store::list_latest(pool, limit.into()).await
    }
}

fn shortened(paths: &[String]) -> Vec<String> {
    paths
        .iter()
        .take(CHANGED_PATHS)
        .map(|path| path.chars().take(PATH_CHARACTERS).collect())
        .collect()
}

async fn write_all(pool: PgPool, mut noted: Receiver<Noted>) {
    let mut prunings = interval(PRUNED_EVERY);
    prunings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            received = noted.recv_many(&mut batch, BATCH) => {
                if received == 0 {
                    return;
                }
                write(&pool, batch.drain(..)).await;
            }
            _ = prunings.tick() => prune(&pool).await,
        }
    }
}

async fn write(pool: &PgPool, batch: impl Iterator<Item = Noted>) {
    // Sorted by key, so that two nodes cannot deadlock.
    let mut together: BTreeMap<Identity, (Noted, u64)> = BTreeMap::new();
    for noted in batch {
        together
            .entry((noted.scope.clone(), noted.actual_prefix.clone()))
            .or_insert((noted, 0))
            .1 += 1;
    }
    let rows: Vec<(Noted, u64)> = together.into_values().collect();
    let written = async {
        store::add_refusals(pool, &rows).await?;
        store::keep_latest(pool, &rows, KEPT_PER_KEY.into()).await
    };
    if let Err(error) = written.await {
        tracing::warn!(%error, "mismatches could not be noted");
        count_dropped(rows.iter().map(|(_, refusals)| refusals).sum());
    }
}

async fn prune(pool: &PgPool) {
    if let Err(error) = store::delete_older(pool, KEPT_FOR, PRUNED_AT_ONCE).await {
        tracing::warn!(%error, "old mismatches could not be deleted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idempotency::IdempotencyKey;

    #[tokio::test]
    async fn a_full_queue_drops_and_does_not_wait() {
        let (queue, mut noted) = channel(1);
        let reuses = Mismatches { queue };
        let mismatch = Mismatch {
            expected_hash: "a".repeat(64),
            actual_hash: "b".repeat(64),
            changed: vec!["m".repeat(1000); 100],
        };
        for key in ["kept", "dropped"] {
            let key = IdempotencyKey::new(key).expect("a key");
            reuses.note(&ScopedKey::new("acme", "create_payment", key), &mismatch);
        }
        let kept = noted.recv().await.expect("one");
        assert_eq!(kept.scope.key.as_str(), "kept");
        assert_eq!(
            (kept.expected_prefix, kept.actual_prefix),
            ("a".repeat(16), "b".repeat(16))
        );
        assert_eq!(kept.changed, vec!["m".repeat(100); 20]);
        assert!(noted.try_recv().is_err(), "the second was dropped");
    }
}
