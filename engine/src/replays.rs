//! The replay cache: final answers, kept in memory until their key expires.
//!
//! A final record never changes, so a cached one cannot be wrong. It can only be too old, and it is never used after its key has
//! expired. The database sets that time. It is converted to this process's monotonic clock, counted from before the statement that
//! read it, so that the entry ends here no later than in the database.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::fingerprint::Fingerprint;
use super::key::ScopedKey;
use super::record::Answer;

/// Maximum size of the cached answers in bytes: about 30,000 payments.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Approximate size of an entry in bytes without its texts.
const ENTRY_OVERHEAD: usize = 512;

#[derive(Clone)]
pub(super) struct Kept {
    pub(super) fingerprint: Arc<Fingerprint>,
    pub(super) answer: Answer,
    until: Instant,
}

/// The answers that this process has produced or read.
pub(super) struct Replays(Cache<ScopedKey, Arc<Kept>>);

impl Replays {
    pub(super) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(weigh)
            .build();
        Self(cache)
    }

    /// Returns the key's answer unless the key has expired.
    pub(super) fn get(&self, key: &ScopedKey) -> Option<Arc<Kept>> {
        let kept = self.0.get(key)?;
        if Instant::now() < kept.until {
            return Some(kept);
        }
        self.0.invalidate(key);
        None
    }

    /// Keeps an answer until its key expires.
    pub(super) fn keep(
        &self,
        key: &ScopedKey,
        fingerprint: &Arc<Fingerprint>,
        answer: &Answer,
        until: Instant,
    ) {
        if Instant::now() < until {
            let answer = Answer {
                replayed: true,
                ..answer.clone()
            };
            self.0.insert(
                key.clone(),
                Arc::new(Kept {
                    fingerprint: Arc::clone(fingerprint),
                    answer,
                    until,
                }),
            );
        }
    }
}

fn weigh(key: &ScopedKey, kept: &Arc<Kept>) -> u32 {
    let response = &kept.answer.response;
    let headers: usize = response
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let scope = key.merchant_id.len() + key.operation.len() + key.key.as_str().len();
    let bytes =
        ENTRY_OVERHEAD + scope + kept.fingerprint.fields.len() + headers + response.body.len();
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// When a key expires, on this process's clock. `left`: the time left according to a statement that was sent at `sent`.
pub(super) fn until(sent: Instant, left: Duration) -> Instant {
    sent.checked_add(left).unwrap_or(sent)
}
