//! Settling: the second phase. Every write here is fenced by owner and attempt.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::engine::{Engine, work_error};
use super::error::IdempotencyError;
use super::gate::{Claim, Held, Permit, Released, Settled};
use super::record::{Answer, Outcome};
use super::store::{self, SeenKey, Standing};
use super::transaction::{Transaction, lend};
use crate::database::{self, Bounded, is_transient};

/// How long a settle is tried again while the database cannot be reached. The gateway may have been called, so this is longer than
/// for a claim; but a client waits for it.
const SETTLE_PATIENCE: Duration = Duration::from_secs(6);

/// The first pause between two tries. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How an outcome is written.
///
/// ```no_run
/// use payonce_engine::grouped::{Settler, in_transaction};
/// use payonce_engine::{Answer, Claim, Engine, IdempotencyError, Outcome, StoredResponse, Transaction};
///
/// /// Measures how long the settle takes.
/// struct Timed<S>(S);
///
/// impl<S: Settler + Sync> Settler for Timed<S> {
///     async fn try_settle(&self, engine: &Engine, claim: &Claim) -> Result<Option<Answer>, IdempotencyError> {
///         let started = std::time::Instant::now();
///         let settled = self.0.try_settle(engine, claim).await;
///         metrics::histogram!("settle_seconds").record(started.elapsed());
///         settled
///     }
/// }
///
/// let settler = Timed(in_transaction(|_: Transaction| async {
///     StoredResponse::json(201, &"sent").map(Outcome::Completed)
/// }));
/// # let _ = settler;
/// ```
pub trait Settler {
    /// Writes the caller's result and the answer in one commit if the claim is still held. Returns `None` if it is not, or if an
    /// earlier try had committed.
    ///
    /// # Errors
    ///
    /// [`Engine::settle_by`] tries again after [`IdempotencyError::Overloaded`] and a transient error of the database, and returns
    /// every other error.
    fn try_settle(
        &self,
        engine: &Engine,
        claim: &Claim,
    ) -> impl Future<Output = Result<Option<Answer>, IdempotencyError>> + Send;
}

impl Engine {
    /// The second phase: `work` writes the caller's result and returns the answer, and both are committed together.
    ///
    /// `work` commits at most once, but it may run more than once if the database failed and the outcome of the commit is not
    /// known. Unlike with [`Engine::execute`], its writes are also kept for [`Outcome::Failed`], because the call has happened and
    /// its result must be recorded.
    ///
    /// ```no_run
    /// # async fn parcel(engine: payonce_engine::Engine, permit: payonce_engine::Permit) -> Result<(), payonce_engine::IdempotencyError> {
    /// use payonce_engine::{Outcome, Settled, StoredResponse, Transaction};
    ///
    /// let work = |mut tx: Transaction| async move {
    ///     sqlx::query("update parcels set sent = true where parcel_id = 1").execute(&mut *tx).await?;
    ///     StoredResponse::json(201, &"sent").map(Outcome::Completed).map_err(sqlx::Error::decode)
    /// };
    /// match engine.settle(permit, work).await? {
    ///     Settled::Stored(answer) | Settled::Lost(Some(answer)) => assert_eq!(answer.response.status, 201),
    ///     Settled::Lost(None) => { /* Another owner is at work on it. */ }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing was written, and the claim stays until it is taken over: [`IdempotencyError::Work`] with the error of `work`,
    /// [`IdempotencyError::InvalidResponse`], [`IdempotencyError::Aborted`], or the database's error.
    /// [`IdempotencyError::OutcomeUnknown`] after some seconds without the database: the outcome may have been written.
    pub async fn settle<E, F, Fut>(
        &self,
        permit: Permit,
        work: F,
    ) -> Result<Settled, IdempotencyError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: Fn(Transaction) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
    {
        self.settle_by(permit, &in_transaction(work)).await
    }

    /// Settles with a [`Settler`].
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn parcel(engine: Engine, permit: Permit) -> Result<(), IdempotencyError> {
    /// use payonce_engine::grouped::in_transaction;
    ///
    /// let settler = in_transaction(|_: Transaction| async {
    ///     StoredResponse::json(201, &"sent").map(Outcome::Completed)
    /// });
    /// // The same as `Engine::settle`. A service that settles in groups gives its own `Settler`.
    /// let settled = engine.settle_by(permit, &settler).await?;
    /// # drop(settled);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of the settler, as for [`Engine::settle`].
    pub async fn settle_by(
        &self,
        permit: Permit,
        settler: &impl Settler,
    ) -> Result<Settled, IdempotencyError> {
        let permit = *permit.0;
        let phase = phase!(
            "settle",
            payonce.operation = permit.claim.scope.operation.as_str(),
            payonce.resource = permit.claim.resource_id.as_str(),
            payonce.attempt = permit.claim.attempt
        );
        let mut patience = Patience::new();
        let settled = loop {
            let error = match settler.try_settle(self, &permit.claim).await {
                Ok(Some(answer)) => break Settled::Stored(answer),
                Ok(None) => match Box::pin(self.read_back(&permit.claim.scope)).await {
                    Ok(seen) => break self.who_settled(&permit, seen),
                    Err(error) => error.into(),
                },
                Err(error) => error,
            };
            // A full queue is worth waiting for here: the gateway has been called.
            let again = matches!(error, IdempotencyError::Overloaded)
                || error.database_error().is_some_and(is_transient);
            if !again {
                return Err(error);
            }
            tracing::warn!(%error, key = %permit.claim.scope, "the outcome could not be stored yet");
            if !patience.pause().await {
                return Err(IdempotencyError::OutcomeUnknown(Box::new(error)));
            }
        };
        drop(phase);
        failpoint!("settle-committed");
        self.land(permit, &settled);
        Ok(settled)
    }

    /// Reads the outcome of a claim that another owner has taken over: see [`Fence::Lost`](super::Fence::Lost).
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn parcel(engine: Engine, permit: Permit) -> Result<Option<Answer>, IdempotencyError> {
    /// if engine.fence(&permit).await? == Fence::Lost {
    ///     return Ok(match engine.give_way(permit).await? {
    ///         Settled::Stored(answer) | Settled::Lost(Some(answer)) => Some(answer),
    ///         // The new owner is still working on it.
    ///         Settled::Lost(None) => None,
    ///     });
    /// }
    /// # drop(permit);
    /// # Ok(None)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::OutcomeUnknown`] if the database could not be asked.
    pub async fn give_way(&self, permit: Permit) -> Result<Settled, IdempotencyError> {
        let permit = *permit.0;
        let seen = self
            .read_back(&permit.claim.scope)
            .await
            .map_err(|lost| IdempotencyError::OutcomeUnknown(Box::new(lost.into())))?;
        let settled = self.who_settled(&permit, seen);
        self.land(permit, &settled);
        Ok(settled)
    }

    /// Answers the requests that wait in this process, and caches the answer.
    fn land(&self, permit: Held, settled: &Settled) {
        if let Settled::Stored(answer) | Settled::Lost(Some(answer)) = settled {
            self.keep(
                &permit.claim.scope,
                &permit.fingerprint,
                answer,
                permit.until,
            );
            permit.flight.land(answer);
        }
    }

    fn who_settled(&self, held: &Held, seen: Option<SeenKey>) -> Settled {
        let Some(seen) = seen else {
            return Settled::Lost(None);
        };
        match seen.answer() {
            Some(answer) if self.holds(&held.claim, &seen) => Settled::Stored(Answer {
                replayed: false,
                ..answer
            }),
            // The claim may have been released in the meantime, and the key used for another request, whose answer is not this
            // request's.
            answer => {
                Settled::Lost(answer.filter(|_| seen.fingerprint.hash == held.fingerprint.hash))
            }
        }
    }

    fn holds(&self, claim: &Claim, seen: &SeenKey) -> bool {
        seen.owner == self.owner()
            && seen.attempt == claim.attempt
            && seen.created_at == claim.created_at
    }

    /// Releases a claim whose call was not made: the key is then as if it had never been used. `work` removes the plan's writes in
    /// the same commit.
    ///
    /// ```no_run
    /// # async fn parcel(engine: payonce_engine::Engine, permit: payonce_engine::Permit) -> Result<(), payonce_engine::IdempotencyError> {
    /// use payonce_engine::{Released, Transaction};
    ///
    /// let work = |mut tx: Transaction| async move {
    ///     sqlx::query("delete from parcels where parcel_id = 1").execute(&mut *tx).await.map(drop)
    /// };
    /// if engine.release(permit, work).await? == Released::Removed {
    ///     // The carrier was never reached, and the key is still good.
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Engine::settle`]. The claim, or what is left of it, stays until it is taken over, and then its call is made.
    pub async fn release<E, F, Fut>(
        &self,
        permit: Permit,
        work: F,
    ) -> Result<Released, IdempotencyError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: Fn(Transaction) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
    {
        let work = Arc::new(work);
        let mut patience = Patience::new();
        loop {
            let (engine, claim, work) = (self.clone(), permit.claim().clone(), Arc::clone(&work));
            let tried = self
                .run(async move { release_once(&engine, &claim, &*work).await })
                .await?;
            match tried {
                Err(IdempotencyError::Database(error)) if is_transient(&error) => {
                    if !patience.pause().await {
                        // The claim may still exist, and then recovery makes its call.
                        let error = IdempotencyError::Database(error);
                        return Err(IdempotencyError::OutcomeUnknown(Box::new(error)));
                    }
                }
                result => return result,
            }
        }
    }
}

/// How [`Engine::settle`] writes an outcome: for a caller of [`Engine::settle_by`] that has something to do before and after. [`Settler`]
/// has an example.
pub fn in_transaction<E, F, Fut>(work: F) -> impl Settler + Send + Sync
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Fn(Transaction) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
{
    InTransaction(Arc::new(work))
}

/// A settle with its own transaction.
struct InTransaction<F>(Arc<F>);

impl<E, F, Fut> Settler for InTransaction<F>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Fn(Transaction) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
{
    async fn try_settle(
        &self,
        engine: &Engine,
        claim: &Claim,
    ) -> Result<Option<Answer>, IdempotencyError> {
        let (work, task_engine, claim) = (Arc::clone(&self.0), engine.clone(), claim.clone());
        engine
            .run(async move { settle_once(&task_engine, &claim, &*work).await })
            .await?
    }
}

async fn settle_once<E, F, Fut>(
    engine: &Engine,
    claim: &Claim,
    work: &F,
) -> Result<Option<Answer>, IdempotencyError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Fn(Transaction) -> Fut,
    Fut: Future<Output = Result<Outcome, E>>,
{
    let mut transaction = database::begin(engine.pool()).await?;
    let held = store::lock_key(&mut transaction, &claim.scope)
        .bounded()
        .await?
        .is_some_and(|seen| {
            engine.holds(claim, &seen)
                && matches!(seen.standing, Standing::Claimed | Standing::Abandoned)
        });
    if !held {
        transaction.rollback().await?;
        return Ok(None);
    }
    let (mut transaction, outcome) = lend(transaction, work).await?;
    let outcome = match outcome
        .map_err(|error| work_error(error.into()))
        .and_then(Outcome::checked)
    {
        Ok(outcome) => outcome,
        Err(error) => {
            transaction.rollback().await?;
            return Err(error);
        }
    };
    store::finish_key(
        &mut transaction,
        &claim.scope,
        engine.owner(),
        claim.attempt,
        &outcome,
    )
    .bounded()
    .await?;
    store::forget_unsettled(&mut transaction, &claim.scope)
        .bounded()
        .await?;
    failpoint!("settle-before-commit");
    let begun = Instant::now();
    transaction.commit().await?;
    engine.make_certain(begun).await?;
    Ok(Some(Answer {
        response: Arc::new(outcome.into_response()),
        replayed: false,
        expires_at: claim.expires_at,
    }))
}

async fn release_once<E, F, Fut>(
    engine: &Engine,
    claim: &Claim,
    work: &F,
) -> Result<Released, IdempotencyError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Fn(Transaction) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let mut transaction = database::begin(engine.pool()).await?;
    let removed = store::remove_key(&mut transaction, engine.owner(), claim)
        .bounded()
        .await?;
    if !removed {
        // The work is gone, so an earlier try had committed. The caller gets the answer once that commit is durable.
        let seen = store::lock_key(&mut transaction, &claim.scope)
            .bounded()
            .await?;
        transaction.commit().await?;
        if seen.is_some() {
            return Ok(Released::Lost);
        }
        engine.wait_until_durable().await?;
        return Ok(Released::Removed);
    }
    store::forget_unsettled(&mut transaction, &claim.scope)
        .bounded()
        .await?;
    let (transaction, removed) = lend(transaction, work).await?;
    if let Err(error) = removed.map_err(|error| work_error(error.into())) {
        transaction.rollback().await?;
        return Err(error);
    }
    let begun = Instant::now();
    transaction.commit().await?;
    engine.make_certain(begun).await?;
    Ok(Released::Removed)
}

/// Growing pauses, up to a time limit.
struct Patience {
    /// Set by the first failure and not before the first try, because the process may be stopped during that try, for example while
    /// its virtual machine is moved.
    deadline: Option<Instant>,
    next: Duration,
}

impl Patience {
    fn new() -> Self {
        Self {
            deadline: None,
            next: FIRST_PAUSE,
        }
    }

    /// Waits before the next try. Returns false if the time is over.
    async fn pause(&mut self) -> bool {
        let now = Instant::now();
        let until = now + self.next;
        if until > *self.deadline.get_or_insert(now + SETTLE_PATIENCE) {
            return false;
        }
        sleep_until(until).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        true
    }
}
