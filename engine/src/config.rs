//! How long a key is remembered, and how long one request waits for another.

use std::time::Duration;

use super::database::Durability;

/// Maximum number of items in one group: its statement and its parameters stay in the processor's cache.
///
/// ```
/// use payonce_engine::IdempotencyConfig;
/// use payonce_engine::grouped::LARGEST_GROUP;
///
/// assert_eq!(IdempotencyConfig::default().group_size, LARGEST_GROUP);
/// ```
pub const LARGEST_GROUP: u16 = 256;

/// The engine's settings. [`Default`] fits a service that answers people's requests.
///
/// ```
/// use std::time::Duration;
/// use payonce_engine::IdempotencyConfig;
///
/// let config = IdempotencyConfig::default()
///     .with_ttl(Duration::from_secs(7 * 24 * 60 * 60))
///     .with_lock_timeout(Duration::from_secs(10));
/// assert_eq!(config.patience(), Duration::from_secs(5));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdempotencyConfig {
    /// How long a key is remembered, from its first use.
    pub ttl: Duration,
    /// How long a claim is held if its owner does not renew it. After that another process may take it over. It is not the
    /// session's `lock_timeout`, which limits how long a statement waits for a locked row: see [`crate::database`].
    pub lock_timeout: Duration,
    /// How long a waiting duplicate pauses before it checks the first request's record again.
    pub retry_interval: Duration,
    /// Maximum number of checks by a waiting duplicate. Together with `retry_interval` it says how long a duplicate waits.
    pub max_retries: u32,
    /// Maximum number of claims, or settles, that one group commits: 1 (each alone) to [`LARGEST_GROUP`].
    pub group_size: u16,
    /// Whether an engine starts on a database that may lose confirmed commits.
    pub durability: Durability,
}

impl Default for IdempotencyConfig {
    fn default() -> Self {
        Self {
            // The same as at Stripe.
            ttl: Duration::from_secs(24 * 60 * 60),
            // Longer than a pause of a healthy process, shorter than a client's patience.
            lock_timeout: Duration::from_secs(5),
            // 5 s in all, as long as a claim without an owner is held: a duplicate can then take over a dead owner's claim.
            retry_interval: Duration::from_millis(50),
            max_retries: 100,
            group_size: LARGEST_GROUP,
            durability: Durability::Required,
        }
    }
}

impl IdempotencyConfig {
    /// Sets [`IdempotencyConfig::ttl`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use payonce_engine::IdempotencyConfig;
    ///
    /// // At least as long as clients repeat their requests: an expired key counts as unused.
    /// let config = IdempotencyConfig::default().with_ttl(Duration::from_secs(30 * 24 * 60 * 60));
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets [`IdempotencyConfig::lock_timeout`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use payonce_engine::IdempotencyConfig;
    ///
    /// // Leases are renewed while their owner lives. So this is how long the claim of a dead process stays, and not how long a call
    /// // may take.
    /// let config = IdempotencyConfig::default().with_lock_timeout(Duration::from_secs(2));
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn with_lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// Sets [`IdempotencyConfig::retry_interval`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use payonce_engine::IdempotencyConfig;
    ///
    /// // Fewer reads, and the same wait.
    /// let config = IdempotencyConfig::default()
    ///     .with_retry_interval(Duration::from_millis(500))
    ///     .with_max_retries(10);
    /// assert_eq!(config.patience(), IdempotencyConfig::default().patience());
    /// ```
    #[must_use]
    pub fn with_retry_interval(mut self, retry_interval: Duration) -> Self {
        self.retry_interval = retry_interval;
        self
    }

    /// Sets [`IdempotencyConfig::max_retries`].
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use payonce_engine::IdempotencyConfig;
    ///
    /// // A duplicate is told at once that the first request is in progress.
    /// let config = IdempotencyConfig::default().with_max_retries(0);
    /// assert_eq!(config.patience(), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn with_max_retries(mut self, max_retries: u32) -> Self {
        self.max_retries = max_retries;
        self
    }

    /// Sets [`IdempotencyConfig::group_size`].
    ///
    /// ```
    /// use payonce_engine::IdempotencyConfig;
    ///
    /// // Each item of a `GroupCommit` is written and committed alone, for example to see a statement's plan in the server's log.
    /// let config = IdempotencyConfig::default().with_group_size(1);
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn with_group_size(mut self, group_size: u16) -> Self {
        self.group_size = group_size;
        self
    }

    /// Sets [`IdempotencyConfig::durability`].
    ///
    /// ```
    /// use payonce_engine::{Durability, IdempotencyConfig};
    ///
    /// // For a test database that runs with `fsync = off`.
    /// let config = IdempotencyConfig::default().with_durability(Durability::Waived);
    /// # let _ = config;
    /// ```
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long a duplicate waits in all.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use payonce_engine::IdempotencyConfig;
    ///
    /// let config = IdempotencyConfig::default();
    /// assert_eq!(config.patience(), Duration::from_secs(5));
    /// // A duplicate waits as long as the claim of a dead process stays, and can then take it over.
    /// assert!(config.patience() >= config.lock_timeout);
    /// ```
    pub fn patience(&self) -> Duration {
        self.retry_interval.saturating_mul(self.max_retries)
    }
}
