//! The authenticator finds the merchant of an API key.
//!
//! Every request needs it, including replays, so its answers are cached, for less than the 5 s within which a revocation takes
//! effect. Unknown keys are cached, too: a new key is random, so it cannot have been looked up before it was created.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use sqlx::PgPool;

use super::api_key::ApiKeyHash;
use super::standing::KnownMerchant;
use super::store;
use crate::database::is_transient;

/// Two seconds less than the promised 5 s, because an answer may take a while from the database to the cache.
pub(super) const TIME_TO_LIVE: Duration = Duration::from_secs(3);

/// Limits the cache to about 15 MB. A flood of invented keys evicts other invented keys rather than keys in use, because moka admits
/// by frequency.
const MAX_ENTRIES: u64 = 100_000;

/// Looks up API keys. Clones share the cache.
#[derive(Clone, Debug)]
pub struct Authenticator {
    pool: PgPool,
    merchants: Cache<ApiKeyHash, Option<KnownMerchant>>,
}

impl Authenticator {
    /// Starts with an empty cache.
    pub fn new(pool: PgPool) -> Self {
        let merchants = Cache::builder()
            .max_capacity(MAX_ENTRIES)
            .time_to_live(TIME_TO_LIVE)
            .build();
        Self { pool, merchants }
    }

    /// Looks up a key in the cache only. Returns `None` if it is not cached, and `Some(None)` if it is known to be invalid.
    pub async fn recall(&self, api_key: &str) -> Option<Option<KnownMerchant>> {
        match ApiKeyHash::of(api_key) {
            Some(hash) => self.merchants.get(&hash).await,
            None => Some(None),
        }
    }

    /// Returns the key's merchant, or `None` if the key is unknown, revoked, or not a key at all.
    ///
    /// Concurrent requests with the same key share one query. They also share its error, which is not cached: the next request queries
    /// again.
    pub async fn authenticate(&self, api_key: &str) -> Result<Option<KnownMerchant>, sqlx::Error> {
        let Some(hash) = ApiKeyHash::of(api_key) else {
            return Ok(None);
        };
        let load = store::find_merchant_by_key(&self.pool, &hash);
        self.merchants
            .try_get_with(hash, load)
            .await
            .map_err(unshare)
    }
}

/// Makes an owned error from one that is shared. Its message is kept, and whether a retry may help.
pub(super) fn unshare(error: Arc<sqlx::Error>) -> sqlx::Error {
    Arc::try_unwrap(error).unwrap_or_else(|shared| match *shared {
        sqlx::Error::PoolTimedOut => sqlx::Error::PoolTimedOut,
        sqlx::Error::PoolClosed => sqlx::Error::PoolClosed,
        _ if is_transient(&shared) => sqlx::Error::Io(io::Error::other(shared)),
        _ => sqlx::Error::AnyDriverError(Box::new(shared)),
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use sqlx::PgPool;

    use super::*;
    use crate::merchants::{Merchants, Revocation};

    fn id_of(merchant: Option<KnownMerchant>) -> Option<Arc<str>> {
        merchant.map(|merchant| merchant.id)
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_hit_does_not_touch_the_database(pool: PgPool) {
        let acme = Merchants::new(pool.clone())
            .create("acme", "Acme")
            .await
            .expect("created");
        let api_key = acme.api_key.expose_secret();
        let unknown = format!("sk_{}", "0".repeat(64));
        let authenticator = Authenticator::new(pool.clone());
        let first = authenticator.authenticate(api_key).await.expect("asked");
        assert_eq!(id_of(first).as_deref(), Some("acme"));
        assert_eq!(
            authenticator.authenticate(&unknown).await.expect("asked"),
            None
        );

        pool.close().await;

        let recalled = authenticator.recall(api_key).await.expect("remembered");
        assert_eq!(id_of(recalled).as_deref(), Some("acme"));
        let hit = authenticator.authenticate(api_key).await.expect("a hit");
        assert_eq!(id_of(hit).as_deref(), Some("acme"));
        assert_eq!(
            authenticator.authenticate(&unknown).await.expect("a hit"),
            None
        );
        assert_eq!(
            authenticator
                .authenticate("not a key")
                .await
                .expect("no query"),
            None
        );
        let miss = authenticator
            .authenticate(&format!("sk_{}", "1".repeat(64)))
            .await;
        let error = miss.expect_err("the pool is closed");
        assert!(matches!(error, sqlx::Error::PoolClosed));
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_revoked_key_is_nobodys_and_its_merchants_other_keys_stay_good(pool: PgPool) {
        let merchants = Merchants::new(pool.clone());
        let first = merchants
            .create("acme", "Acme")
            .await
            .expect("created")
            .api_key;
        let second = merchants
            .create_api_key("acme")
            .await
            .expect("created")
            .api_key;
        let id = merchants
            .list_api_keys("acme")
            .await
            .expect("listed")
            .remove(0)
            .id;
        let revoked = merchants.revoke_api_key(&id).await.expect("revoked");
        assert_eq!(revoked, Revocation::Revoked);

        let authenticator = Authenticator::new(pool);
        let asked = authenticator
            .authenticate(first.expose_secret())
            .await
            .expect("asked");
        assert_eq!(asked, None);
        let asked = authenticator
            .authenticate(second.expose_secret())
            .await
            .expect("asked");
        assert_eq!(id_of(asked).as_deref(), Some("acme"));
    }

    #[test]
    fn the_cache_forgets_within_the_promised_five_seconds() {
        assert!(TIME_TO_LIVE < Duration::from_secs(5));
    }
}
