//! The replay cache: final answers, kept in memory until their key expires.
//!
//! A final record never changes, so a kept one cannot be wrong; it can only be too old, and is never used past its key's time.
//! That time is the database's: it is carried over to this process's monotonic clock from before the statement that told it,
//! so that it ends here no later than there.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;

use super::fingerprint::Fingerprint;
use super::key::ScopedKey;
use super::record::Answer;

/// How much memory the answers may take, in bytes: some 30,000 payments.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// What an entry takes besides its texts: the map's and the strings' own bookkeeping, roughly.
const ENTRY_OVERHEAD: usize = 512;

#[derive(Clone)]
pub(super) struct Kept {
    pub(super) fingerprint: Arc<Fingerprint>,
    pub(super) answer: Answer,
    until: Instant,
}

/// The answers that this process has made or seen.
pub(super) struct Replays(Cache<ScopedKey, Arc<Kept>>);

impl Replays {
    pub(super) fn new() -> Self {
        let cache = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(weigh)
            .build();
        Self(cache)
    }

    /// The key's answer, unless its time is over.
    pub(super) fn get(&self, key: &ScopedKey) -> Option<Arc<Kept>> {
        let kept = self.0.get(key)?;
        if Instant::now() < kept.until {
            return Some(kept);
        }
        self.0.invalidate(key);
        None
    }

    /// Keeps an answer until its key's time is over.
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

/// When a key's time ends on this process's clock: it had `left` to live when a statement was answered that was sent at
/// `sent`.
pub(super) fn until(sent: Instant, left: Duration) -> Instant {
    sent.checked_add(left).unwrap_or(sent)
}
