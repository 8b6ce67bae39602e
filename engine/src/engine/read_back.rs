//! Whether a commit happened, and whether it is durable.

use std::future::Future;
use std::time::Duration;

use sqlx::PgPool;
use tokio::time::{Instant, sleep_until};

use super::Engine;
use crate::database::{self, Bounded, is_transient};
use crate::error::IdempotencyError;
use crate::key::ScopedKey;
use crate::store::{self, Inserted, NewKey, SeenKey, Standing};

/// A commit that took this long may have waited for a standby that is gone, until the wait was canceled: PostgreSQL then reports
/// success with a warning, and the commit is not durable. The engine waits for it once more before it relies on it.
pub(crate) const SLOW_COMMIT: Duration = Duration::from_millis(10);

/// How long the engine keeps asking an unreachable database for the outcome of a commit.
const READ_BACK_PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    /// Reads a key. A final key is returned only once it is durable, because an answer may rely on it.
    pub(super) async fn see(&self, key: &ScopedKey) -> Result<Option<SeenKey>, IdempotencyError> {
        let mut connection = database::acquire(&self.0.pool).await?;
        let seen = store::see_key(&mut connection, key).bounded().await?;
        drop(connection);
        let is_under_way =
            |seen: &SeenKey| matches!(seen.standing, Standing::Claimed | Standing::Abandoned);
        match seen {
            Some(seen) if !seen.is_durable && !is_under_way(&seen) => {
                Ok(read_locked(self.0.pool.clone(), key.clone()).await?)
            }
            seen => Ok(seen),
        }
    }

    /// If a commit that began at `since` was slow, waits once more until it is durable.
    pub(crate) async fn make_certain(&self, since: Instant) -> Result<(), IdempotencyError> {
        if since.elapsed() < SLOW_COMMIT {
            return Ok(());
        }
        self.wait_until_durable()
            .await
            .map_err(|lost| IdempotencyError::OutcomeUnknown(Box::new(lost.into())))
    }

    /// Returns when everything that was read before is durable, so that an answer may rely on it.
    pub(crate) async fn wait_until_durable(&self) -> sqlx::Result<()> {
        let mut connection = database::acquire(&self.0.pool).await?;
        store::wait_until_durable(&mut connection).bounded().await
    }

    /// Locks the key's row and reads it. This waits for a commit of the row that may still be under way, and until what it read is
    /// durable. While the database cannot be reached, it tries again, for up to [`READ_BACK_PATIENCE`].
    pub(crate) async fn read_back(&self, key: &ScopedKey) -> sqlx::Result<Option<SeenKey>> {
        self.ask_until_answered(|| read_locked(self.0.pool.clone(), key.clone()))
            .await
    }

    /// Like [`Engine::read_back`], for a claim if the answer to its commit was lost: it also waits for a commit that has inserted
    /// the key and is still under way. `None` is certain then, unless the claim is sent again.
    pub(super) async fn read_back_claim(&self, key: &NewKey) -> sqlx::Result<Option<SeenKey>> {
        self.ask_until_answered(|| read_claim(self.0.pool.clone(), key.clone()))
            .await
    }

    async fn ask_until_answered<T, Fut>(&self, ask: impl Fn() -> Fut) -> sqlx::Result<T>
    where
        Fut: Future<Output = sqlx::Result<T>>,
    {
        let deadline = Instant::now() + READ_BACK_PATIENCE;
        loop {
            match ask().await {
                Err(error) if is_transient(&error) => {
                    let next = Instant::now() + self.0.config.retry_interval;
                    if next > deadline {
                        return Err(error);
                    }
                    sleep_until(next).await;
                }
                result => return result,
            }
        }
    }

    /// Finds a claim after the answer to its commit was lost. Returns its times. Only this claim has its owner and its resource.
    ///
    /// Returns `None` if there is no such claim. A statement that the server has not begun yet may still insert it: send the claim
    /// again, or answer that its outcome is not known. The [`grouped`](crate::grouped) module's example does so.
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::OutcomeUnknown`] if the database cannot be reached.
    pub async fn claimed_after_all(
        &self,
        key: &NewKey,
        resource_id: &str,
    ) -> Result<Option<Inserted>, IdempotencyError> {
        let seen = self
            .read_back_claim(key)
            .await
            .map_err(|lost| IdempotencyError::OutcomeUnknown(Box::new(lost.into())))?;
        Ok(seen
            .filter(|seen| seen.owner == key.owner && seen.attempt == 1)
            .filter(|seen| seen.resource_id.as_deref() == Some(resource_id))
            .map(|seen| Inserted {
                created_at: seen.created_at,
                expires_at: seen.expires_at,
            }))
    }
}

/// Locks the key's row and reads it. The lock takes a transaction id, so the commit waits until all that was read is durable, as
/// any other commit does; a rollback would not.
async fn read_locked(pool: PgPool, key: ScopedKey) -> sqlx::Result<Option<SeenKey>> {
    let mut transaction = database::begin(&pool).await?;
    let seen = store::lock_key(&mut transaction, &key).bounded().await?;
    transaction.commit().await?;
    Ok(seen)
}

/// Reads a claim whose commit may still be under way. A lock does not see a row that is not committed yet, but an insert of the
/// same key waits for it.
async fn read_claim(pool: PgPool, key: NewKey) -> sqlx::Result<Option<SeenKey>> {
    let mut transaction = database::begin(&pool).await?;
    let inserted = store::insert_key(&mut transaction, &key).bounded().await?;
    if inserted.is_some() {
        transaction.rollback().await?;
        return Ok(None);
    }
    let seen = store::lock_key(&mut transaction, &key.scope)
        .bounded()
        .await?;
    transaction.commit().await?;
    Ok(seen)
}
