//! Claims of one transaction, in which the caller plans the work.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Engine, RETRY_AFTER, work_error};
use crate::claimant::{Attempt, Claimant, Remembered};
use crate::database::{self, Bounded, may_have_committed};
use crate::error::IdempotencyError;
use crate::gate::Plan;
use crate::key::ScopedKey;
use crate::record::{Answer, Outcome};
use crate::store::{self, Inserted, NewKey, SeenKey};
use crate::transaction::{Transaction, lend};

impl Engine {
    /// How [`Engine::claim`] takes a key: for a caller of [`Engine::enter`] that has something to do before and after. See there for
    /// an example.
    pub fn planned<T, E, F, Fut>(&self, plan: F) -> impl Claimant<T> + Send + use<T, E, F, Fut>
    where
        T: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Transaction) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Plan<T>, E>> + Send + 'static,
    {
        PlannedClaim {
            engine: self.clone(),
            plan: Some(plan),
        }
    }
}

/// A claim with its own transaction, in which the caller plans.
struct PlannedClaim<F> {
    engine: Engine,
    /// `None` once it ran, after which there is no second attempt.
    plan: Option<F>,
}

impl<T, E, F, Fut> Claimant<T> for PlannedClaim<F>
where
    T: Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce(Transaction) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Plan<T>, E>> + Send + 'static,
{
    async fn try_claim(&mut self, key: NewKey) -> Result<Attempt<T>, IdempotencyError> {
        let Some(plan) = self.plan.take() else {
            return Err(IdempotencyError::Aborted("its plan has run already"));
        };
        let engine = self.engine.clone();
        let (attempt, unused) = self
            .engine
            .run(async move { claim_and_plan(&engine, key, plan).await })
            .await??;
        self.plan = unused;
        Ok(attempt)
    }

    async fn remembered(&mut self, _: &ScopedKey) -> Result<Option<Remembered>, IdempotencyError> {
        // The plan checks this itself, and returns `Plan::Expired`.
        Ok(None)
    }

    async fn may_take_over(&mut self, _: &ScopedKey, _: &str) -> Result<(), IdempotencyError> {
        Ok(())
    }
}

/// The claim of work in one transaction. It leaves no unfinished claim, so an abandoned one belongs to a two-phase operation of the
/// same name, whose own recovery knows what to do.
pub(super) struct InOneTransaction<C>(pub(super) C);

impl<T, C: Claimant<T> + Send> Claimant<T> for InOneTransaction<C> {
    async fn try_claim(&mut self, key: NewKey) -> Result<Attempt<T>, IdempotencyError> {
        self.0.try_claim(key).await
    }

    async fn remembered(
        &mut self,
        scope: &ScopedKey,
    ) -> Result<Option<Remembered>, IdempotencyError> {
        self.0.remembered(scope).await
    }

    async fn may_take_over(&mut self, _: &ScopedKey, _: &str) -> Result<(), IdempotencyError> {
        Err(IdempotencyError::InProgress {
            retry_after: RETRY_AFTER,
        })
    }
}

/// One transaction: the key, the caller's writes and, where the outcome is known, the answer. Gives the plan back if the key was in
/// use.
async fn claim_and_plan<T, E, F, Fut>(
    engine: &Engine,
    key: NewKey,
    plan: F,
) -> Result<(Attempt<T>, Option<F>), IdempotencyError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce(Transaction) -> Fut,
    Fut: Future<Output = Result<Plan<T>, E>>,
{
    let mut transaction = database::begin(&engine.0.pool).await?;
    let Some(inserted) = take_key(&mut transaction, &key).await? else {
        transaction.rollback().await?;
        return Ok((Attempt::InUse, Some(plan)));
    };
    sqlx::raw_sql("savepoint payonce_work")
        .execute(&mut *transaction)
        .bounded()
        .await?;
    let (mut transaction, planned) = lend(transaction, plan).await?;
    let planned = planned
        .map_err(|error| work_error(error.into()))
        .and_then(Plan::checked);
    let attempt = match planned {
        Ok(Plan::Expired {
            resource_id,
            created_at,
        }) => {
            transaction.rollback().await?;
            return Ok((
                Attempt::Expired(Remembered {
                    resource_id,
                    created_at,
                }),
                None,
            ));
        }
        Ok(Plan::Call { resource_id, work }) => {
            store::keep_unsettled(&mut transaction, &key.scope, &resource_id)
                .bounded()
                .await?;
            Attempt::Claimed {
                inserted,
                resource_id,
                work,
            }
        }
        Ok(Plan::Finish {
            resource_id,
            outcome,
        }) => {
            write_outcome(&mut transaction, &key, resource_id.as_deref(), &outcome).await?;
            Attempt::Finished(Answer {
                response: Arc::new(outcome.into_response()),
                replayed: false,
                expires_at: inserted.expires_at,
            })
        }
        Err(error) => {
            transaction.rollback().await?;
            return Err(error);
        }
    };
    failpoint!("claim-before-commit");
    commit_claim(engine, transaction, &key, &inserted).await?;
    Ok((attempt, None))
}

/// Stores the outcome under the key that this transaction has taken. A failure's writes are undone before.
async fn write_outcome(
    transaction: &mut database::BoundedTransaction,
    key: &NewKey,
    resource_id: Option<&str>,
    outcome: &Outcome,
) -> Result<(), IdempotencyError> {
    if matches!(outcome, Outcome::Failed(_)) {
        sqlx::raw_sql("rollback to savepoint payonce_work")
            .execute(&mut **transaction)
            .bounded()
            .await?;
    }
    if store::finish_new_key(transaction, &key.scope, resource_id, outcome)
        .bounded()
        .await?
    {
        Ok(())
    } else {
        Err(IdempotencyError::Aborted("it deleted its own key"))
    }
}

/// Commits, and returns once the commit is certain and durable. If the answer to the commit is lost, the key is read back.
async fn commit_claim(
    engine: &Engine,
    transaction: database::BoundedTransaction,
    key: &NewKey,
    inserted: &Inserted,
) -> Result<(), IdempotencyError> {
    let begun = Instant::now();
    match transaction.commit().await {
        Ok(()) => engine.make_certain(begun).await,
        Err(error) if may_have_committed(&error) => match engine.read_back_claim(key).await {
            Ok(Some(seen)) if is_this_claim(&seen, key, inserted) => Ok(()),
            Ok(_) => Err(error.into()),
            Err(lost) => Err(IdempotencyError::OutcomeUnknown(Box::new(lost.into()))),
        },
        Err(error) => Err(error.into()),
    }
}

/// Takes the key if it is unused or expired. Returns `None` if it is in use.
async fn take_key(
    transaction: &mut database::BoundedTransaction,
    key: &NewKey,
) -> sqlx::Result<Option<Inserted>> {
    let inserted = store::insert_key(transaction, key).bounded().await?;
    if inserted.is_none() && key.has_expired {
        return store::replace_expired_key(transaction, key).bounded().await;
    }
    Ok(inserted)
}

/// A first use of a key is identified by its owner and its time. No other use has the same.
pub(crate) fn is_this_claim(seen: &SeenKey, key: &NewKey, inserted: &Inserted) -> bool {
    seen.owner == key.owner && seen.attempt == 1 && seen.created_at == inserted.created_at
}
