//! Takeovers of abandoned claims.

use std::future::Future;
use std::time::Duration;

use super::Engine;
use super::enter::Asked;
use crate::database::{self, Bounded, Distribution, is_lock_timeout, may_have_committed};
use crate::error::IdempotencyError;
use crate::flights::Boarding;
use crate::gate::{Claim, Held, Permit};
use crate::key::ScopedKey;
use crate::lease::Fence;
use crate::store::{self, Abandoned, Standing};

impl Engine {
    /// Takes over a claim whose owner has been silent for its whole lease. Returns `None` if it is held, here or
    /// elsewhere, or final.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn by_hand(engine: Engine, key: ScopedKey) -> Result<(), IdempotencyError> {
    /// match engine.take_over(&key).await? {
    ///     Some(permit) => println!("attempt {} is ours, for {}", permit.claim().attempt, permit.resource_id()),
    ///     None => println!("it is held, final or gone"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's. [`IdempotencyError::OutcomeUnknown`] if the claim may have been taken over: it can be again after its lease.
    pub async fn take_over(&self, key: &ScopedKey) -> Result<Option<Permit>, IdempotencyError> {
        self.take_over_guarded(key, |_| std::future::ready(Ok(())))
            .await
    }

    /// Like [`Engine::take_over`], but first calls `may_take_over` with [`Permit::resource_id`]. Its error leaves the claim alone
    /// and is returned.
    pub(crate) async fn take_over_guarded<G, Guarded>(
        &self,
        key: &ScopedKey,
        may_take_over: G,
    ) -> Result<Option<Permit>, IdempotencyError>
    where
        G: FnOnce(String) -> Guarded + Send,
        Guarded: Future<Output = Result<(), IdempotencyError>> + Send,
    {
        let seen = self.see(key).await?;
        let Some(seen) = seen.filter(|seen| matches!(seen.standing, Standing::Abandoned)) else {
            return Ok(None);
        };
        may_take_over(seen.resource_id.unwrap_or_default()).await?;
        let Boarding::Leader(flight) = self.0.flights.board(key, &seen.fingerprint) else {
            return Ok(None);
        };
        let asked = Asked::now();
        let claim = self.take(key).await?;
        Ok(claim.map(|claim| self.permit(claim, flight, seen.fingerprint, asked)))
    }

    /// Returns whether a claim may still act. Call it right before each call to another system.
    ///
    /// If an owner was stopped, or its machine suspended, another process may have taken its claim over. If the lease was confirmed
    /// recently enough, this does not ask the database. Otherwise the lease is renewed first, which fails where the claim was taken
    /// over.
    ///
    /// ```no_run
    /// # async fn parcel(engine: payonce_engine::Engine, permit: payonce_engine::Permit) -> Result<(), payonce_engine::IdempotencyError> {
    /// use payonce_engine::Fence;
    ///
    /// match engine.fence(&permit).await? {
    ///     Fence::Held { .. } => { /* Make the call. */ }
    ///     Fence::Lost => {
    ///         let settled = engine.give_way(permit).await?;
    /// #         drop(settled);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database could not be asked. The caller must not make its call.
    pub async fn fence(&self, permit: &Permit) -> Result<Fence, IdempotencyError> {
        let Held { claim, lease, .. } = &*permit.0;
        let is_confirmed = || {
            lease
                .unconfirmed_for()
                .map(|since| since < self.0.config.lock_timeout)
        };
        if is_confirmed() == Some(false) {
            Box::pin(self.renew(&claim.scope, lease)).await?;
        }
        Ok(match is_confirmed() {
            Some(true) => Fence::Held {
                age: claim.age.map(|age| age.saturating_add(lease.held_for())),
            },
            // Renewed, but then stopped again: another process may have taken it over.
            Some(false) | None => Fence::Lost,
        })
    }

    /// Takes an abandoned claim over. If the outcome of that is not known, this process may hold the claim, and recovery continues
    /// it later.
    pub(super) async fn take(&self, key: &ScopedKey) -> Result<Option<Claim>, IdempotencyError> {
        let mut connection = database::acquire(&self.0.pool).await?;
        let (owner, lock_timeout) = (self.0.owner, self.0.config.lock_timeout);
        let taken = store::take_over(&mut connection, key, owner, lock_timeout)
            .bounded()
            .await;
        match taken {
            // The transaction that holds the row is at work on it.
            Err(error) if is_lock_timeout(&error) => Ok(None),
            Err(error) if may_have_committed(&error) => {
                Err(IdempotencyError::OutcomeUnknown(Box::new(error.into())))
            }
            taken => Ok(taken?),
        }
    }

    /// Lists at most `limit` keys of these operations that can be taken over, oldest first, starting after `after`.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn list(engine: Engine) -> Result<(), IdempotencyError> {
    /// let mut last = None;
    /// loop {
    ///     let page = engine.list_abandoned(&["send_parcel"], last.as_ref(), 100).await?;
    ///     for abandoned in &page {
    ///         println!("{} since {}", abandoned.scope, abandoned.claimed_at);
    ///     }
    ///     let Some(end) = page.into_iter().last() else { break };
    ///     last = Some(end);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn list_abandoned(
        &self,
        operations: &[&str],
        after: Option<&Abandoned>,
        limit: u32,
    ) -> Result<Vec<Abandoned>, IdempotencyError> {
        let mut connection = database::acquire(&self.0.pool).await?;
        let listed = store::list_abandoned(&mut connection, operations, after, limit.into())
            .bounded()
            .await;
        match listed {
            // The work on the other nodes is resumed although one node is lost.
            Err(error)
                if self.0.distribution == Distribution::ByMerchant
                    && database::is_transient(&error) =>
            {
                drop(connection);
                let mut connection = database::acquire(&self.0.pool).await?;
                let listed =
                    store::list_on_live_nodes(&mut connection, operations, after, limit.into());
                Ok(listed.bounded().await?)
            }
            listed => Ok(listed?),
        }
    }

    /// Returns how many keys are in `PROCESSING`, and how long the oldest has been.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn watch(engine: payonce_engine::Engine) -> Result<(), payonce_engine::IdempotencyError> {
    /// let (count, oldest) = engine.count_unsettled().await?;
    /// if oldest > Duration::from_secs(60 * 60) {
    ///     eprintln!("{count} keys are in PROCESSING, the oldest for {} minutes", oldest.as_secs() / 60);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn count_unsettled(&self) -> Result<(u64, Duration), IdempotencyError> {
        let mut connection = database::acquire(&self.0.pool).await?;
        let (count, seconds) = store::count_unsettled(&mut connection).bounded().await?;
        Ok((
            count.unsigned_abs(),
            Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        ))
    }
}
