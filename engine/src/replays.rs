//! The replay cache: final answers, kept in memory until their key expires.
//!
//! A final record never changes, so a cached one cannot be wrong. It can only be too old, and it is never used after its key has
//! expired. The database sets that time. It is converted to this process's monotonic clock, counted from before the statement that
//! read it, so that the entry ends here no later than in the database.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::fingerprint::Fingerprint;
use super::key::ScopedKey;
use super::record::Answer;

/// Maximum size of the cached answers in bytes: about 28,000 payments.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Number of payments that it has room for.
const USUAL_ENTRIES: usize = 28_000;

/// Approximate size of an entry in bytes without its texts.
const ENTRY_OVERHEAD: usize = 512;

/// Approximate size of a header in bytes without its texts: two strings, and what the allocator adds to each.
const HEADER_OVERHEAD: usize = 64;

#[derive(Clone)]
pub(super) struct Kept {
    pub(super) fingerprint: Arc<Fingerprint>,
    pub(super) answer: Answer,
    until: Instant,
}

/// The answers that this process has produced or read.
///
/// A cache without a queue of writes behind it: an answer is kept once a payment and often never read, so keeping one must cost little.
pub(super) struct Replays(Cache<ScopedKey, Arc<Kept>, BySize>);

impl Replays {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(USUAL_ENTRIES, MAX_BYTES, BySize))
    }

    /// Returns the key's answer unless the key has expired.
    pub(super) fn get(&self, key: &ScopedKey) -> Option<Arc<Kept>> {
        let kept = self.0.get(key)?;
        if Instant::now() < kept.until {
            return Some(kept);
        }
        self.0.remove(key);
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

#[derive(Clone)]
struct BySize;

impl Weighter<ScopedKey, Arc<Kept>> for BySize {
    fn weight(&self, key: &ScopedKey, kept: &Arc<Kept>) -> u64 {
        let response = &kept.answer.response;
        let headers: usize = response
            .headers
            .iter()
            .map(|(name, value)| HEADER_OVERHEAD + name.len() + value.len())
            .sum();
        let scope = key.merchant_id.len() + key.operation.len() + key.key.as_str().len();
        let texts = scope + kept.fingerprint.fields.len() + response.body.len();
        u64::try_from(ENTRY_OVERHEAD + headers + texts).unwrap_or(MAX_BYTES)
    }
}

/// When a key expires, on this process's clock. `left`: the time left according to a statement that was sent at `sent`.
pub(super) fn until(sent: Instant, left: Duration) -> Instant {
    sent.checked_add(left).unwrap_or(sent)
}
