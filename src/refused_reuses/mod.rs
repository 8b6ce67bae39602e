//! A refused reuse is a request that came under a key of another request. An operator who helps a merchant wants to see
//! which requests these were; the merchant's client was told at the time (`idempotency-key-reused`).
//!
//! They are noted beside the request's path: a bounded queue, which drops what does not fit, and one writer, which puts many
//! into one statement. The request is refused in the same way whether its refusal is noted or not.

mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{MissedTickBehavior, interval};

use crate::idempotency::{Mismatch, ScopedKey};

/// How much of a fingerprint is kept: as much as the client is told.
const PREFIX_DIGITS: usize = 16;

/// So many wait for the writer at most; further ones are dropped and counted. Some 200 bytes each.
const QUEUE: usize = 1024;

/// So many go into one statement at most.
const BATCH: usize = 256;

/// So many of a key are kept: enough to see whether it is one wrong request, or a key that is used for everything.
pub const KEPT_PER_KEY: u16 = 5;

/// How long they are kept: longer than a key lives, so that Monday's operator sees Friday's.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often old ones are deleted.
const PRUNED_EVERY: Duration = Duration::from_secs(10 * 60);

/// So many are deleted at once.
const PRUNED_AT_ONCE: i64 = 5000;

/// So many paths of one refusal are kept, and so much of each: a client chooses the names of its metadata.
const CHANGED_PATHS: usize = 20;
const PATH_CHARACTERS: usize = 100;

/// One request that was refused, some number of times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedReuse {
    /// The key.
    pub scope: ScopedKey,
    /// The first 16 hexadecimal digits of the fingerprint of the request that has the key.
    pub expected_prefix: String,
    /// Those of the request that was refused.
    pub actual_prefix: String,
    /// The paths of the fields that differ, never values.
    pub changed: Vec<String>,
    /// How often it was refused.
    pub refusals: u64,
    /// By the database's clock.
    pub first_seen_at: DateTime<Utc>,
    /// By the database's clock.
    pub last_seen_at: DateTime<Utc>,
}

/// Notes refused reuses. Cloning it is cheap.
#[derive(Clone)]
pub struct RefusedReuses {
    queue: Sender<Noted>,
}

/// What is waiting to be written.
struct Noted {
    scope: ScopedKey,
    expected_prefix: String,
    actual_prefix: String,
    changed: Vec<String>,
}

/// What makes two refusals the same one.
type Identity = (ScopedKey, String);

impl RefusedReuses {
    /// Starts the writer, which ends with the last clone of this.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(pool: PgPool) -> Self {
        let (queue, noted) = channel(QUEUE);
        tokio::spawn(write_all(pool, noted));
        Self { queue }
    }

    /// Notes one, or drops it where the queue is full. It never waits.
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

    /// Those of one key that are kept, latest first.
    pub async fn of_key(pool: &PgPool, scope: &ScopedKey) -> sqlx::Result<Vec<RefusedReuse>> {
        store::list_of_key(pool, scope).await
    }

    /// The latest of all keys, `limit` at most.
    pub async fn latest(pool: &PgPool, limit: u16) -> sqlx::Result<Vec<RefusedReuse>> {
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
    // In the order of the keys, so that two nodes never wait for each other.
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
        tracing::warn!(%error, "refused reuses could not be noted");
        count_dropped(rows.iter().map(|(_, refusals)| refusals).sum());
    }
}

async fn prune(pool: &PgPool) {
    if let Err(error) = store::delete_older(pool, KEPT_FOR, PRUNED_AT_ONCE).await {
        tracing::warn!(%error, "old refused reuses could not be deleted");
    }
}

fn count_dropped(refusals: u64) {
    metrics::counter!("payonce_refused_reuses_dropped_total").increment(refusals);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idempotency::IdempotencyKey;

    #[tokio::test]
    async fn a_full_queue_drops_and_does_not_wait() {
        let (queue, mut noted) = channel(1);
        let reuses = RefusedReuses { queue };
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
