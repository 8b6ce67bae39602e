//! Merchants' own accounts at a gateway.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use sqlx::PgPool;

use super::authenticator::unshare;
use super::store;

/// Maximum time until a change of an account has reached every node.
const TIME_TO_LIVE: Duration = Duration::from_secs(3);

/// Maximum number of merchants in the cache.
const MAX_ENTRIES: u64 = 10_000;

/// Looks up accounts. Clones share the cache.
#[derive(Clone, Debug)]
pub struct Accounts {
    pool: PgPool,
    accounts: Cache<String, Option<Arc<str>>>,
}

impl Accounts {
    /// Starts with an empty cache.
    pub fn new(pool: PgPool) -> Self {
        let accounts = Cache::builder()
            .max_capacity(MAX_ENTRIES)
            .time_to_live(TIME_TO_LIVE)
            .build();
        Self { pool, accounts }
    }

    /// Returns the merchant's own account at Stripe (`acct_…`), or `None` if it has none.
    pub async fn stripe_account(&self, merchant_id: &str) -> sqlx::Result<Option<Arc<str>>> {
        let load = async {
            let account = store::find_stripe_account(&self.pool, merchant_id).await?;
            Ok(account.map(Arc::from))
        };
        self.accounts
            .try_get_with_by_ref(merchant_id, load)
            .await
            .map_err(unshare)
    }
}
