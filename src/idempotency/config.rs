//! How long a key is remembered, and how long one waits for another.

use std::time::Duration;

/// The most items in one group: its statement and its parameters stay in the processor's cache.
pub const LARGEST_GROUP: u16 = 256;

/// The engine's settings. Every field is a time or a count; [`Default`] is what the service starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyConfig {
    /// How long a key is remembered, from its first use.
    pub ttl: Duration,
    /// How long a claim is held without a sign of life of its owner, before another may take it over. It also bounds how
    /// long a transaction waits for a row that another holds.
    pub lock_timeout: Duration,
    /// The pause between two looks of a duplicate at the first request's record.
    pub retry_interval: Duration,
    /// How often a duplicate looks before it gives up: with `retry_interval`, how long it waits.
    pub max_retries: u32,
    /// The most claims, or settles, that one group commits, 1 to [`LARGEST_GROUP`]. 1: each alone.
    pub group_size: u16,
}

impl Default for IdempotencyConfig {
    fn default() -> Self {
        Self {
            // What Stripe's clients are used to.
            ttl: Duration::from_secs(24 * 60 * 60),
            // Longer than a pause of a healthy process, shorter than a client's patience.
            lock_timeout: Duration::from_secs(5),
            // 5 s in all: as long as a claim lives without its owner, so that a duplicate sees a dead owner's claim end.
            retry_interval: Duration::from_millis(50),
            max_retries: 100,
            group_size: LARGEST_GROUP,
        }
    }
}

impl IdempotencyConfig {
    /// How long a duplicate waits in all.
    pub fn patience(&self) -> Duration {
        self.retry_interval.saturating_mul(self.max_retries)
    }
}
