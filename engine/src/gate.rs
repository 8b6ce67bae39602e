//! The gate: the decision about a request and its key.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::error::IdempotencyError;
use super::fingerprint::{Fingerprint, Mismatch};
use super::flights::Flight;
use super::key::ScopedKey;
use super::lease::Lease;
use super::record::{Answer, Outcome};

/// The decision about a request at the gate. Each variant must be handled.
///
/// ```
/// use payonce_engine::Gate;
///
/// /// The status of an answer that needs no further work; `None` for a request that executes.
/// fn status<T>(gate: &Gate<T>) -> Option<u16> {
///     match gate {
///         Gate::Claimed { .. } | Gate::TakenOver(_) => None,
///         Gate::Answered(answer) => Some(answer.response.status),
///         Gate::InProgress { .. } | Gate::Expired { .. } => Some(409),
///         Gate::Mismatch(_) => Some(422),
///     }
/// }
///
/// let gate = Gate::<()>::InProgress { retry_after: std::time::Duration::from_secs(1) };
/// assert_eq!(status(&gate), Some(409));
/// ```
#[must_use]
pub enum Gate<T> {
    /// The key is this request's to execute: make the call, then settle.
    Claimed {
        /// The right and the duty to settle.
        permit: Permit,
        /// What the plan returned for the call.
        work: T,
    },
    /// An earlier owner died, and this request took its claim over: read its plan by [`Permit::resource_id`], find out whether the
    /// call was made, make it if it was not, then settle.
    TakenOver(Permit),
    /// The final answer. [`Answer::replayed`] is false if this request executed and its outcome was known in the claim's own
    /// transaction.
    Answered(Answer),
    /// Another request is in progress, and this one has waited as long as it may.
    InProgress {
        /// When to try again.
        retry_after: Duration,
    },
    /// Another request was made under this key.
    Mismatch(Mismatch),
    /// The record has expired; the resource that it created is known.
    Expired {
        /// The id of the resource that the key created.
        resource_id: String,
        /// When it was created.
        created_at: DateTime<Utc>,
    },
}

/// What the first transaction of a two-phase request decided.
///
/// ```no_run
/// # async fn claim(engine: payonce_engine::Engine, key: payonce_engine::ScopedKey) -> Result<(), payonce_engine::IdempotencyError> {
/// use payonce_engine::{Plan, Transaction, Wait};
///
/// let plan = async |mut tx: Transaction| {
///     let id: i64 = sqlx::query_scalar("insert into parcels (address) values ('here') returning parcel_id")
///         .fetch_one(&mut *tx)
///         .await?;
///     Ok::<_, sqlx::Error>(Plan::Call { resource_id: id.to_string(), work: () })
/// };
/// let gate = engine.claim(&key, "here", Wait::Configured, plan).await?;
/// # drop(gate);
/// # Ok(())
/// # }
/// ```
pub enum Plan<T> {
    /// A call to another system must be made: claim the key.
    Call {
        /// The id of the resource that is created or changed. A later owner of the claim finds its work by it.
        resource_id: String,
        /// What the caller needs for the call.
        work: T,
    },
    /// The outcome is known already.
    Finish {
        /// The id of the resource.
        resource_id: Option<String>,
        /// The outcome to store and replay.
        outcome: Outcome,
    },
    /// The key created something long ago, and its record is gone: nothing is done or stored.
    Expired {
        /// The id of the resource that it created.
        resource_id: String,
        /// When it was created.
        created_at: DateTime<Utc>,
    },
}

impl<T> Plan<T> {
    /// Returns the plan unchanged, or an error if its answer cannot be stored.
    pub(super) fn checked(self) -> Result<Self, IdempotencyError> {
        if let Self::Finish { outcome, .. } = &self {
            outcome.response().check()?;
        }
        Ok(self)
    }
}

/// The right to settle one attempt at one key. It is consumed by settling; if it is dropped, another process takes the claim over
/// when its lease has ended.
///
/// ```no_run
/// # use payonce_engine::*;
/// # async fn parcel(engine: Engine, permit: Permit) -> Result<(), IdempotencyError> {
/// let claim = permit.claim().clone();
/// let work = |_: Transaction| async { StoredResponse::json(201, &"sent").map(Outcome::Completed) };
/// // This takes the permit, so nothing can be settled twice.
/// let settled = engine.settle(permit, work).await?;
/// # drop(settled);
/// println!("{} needed {} attempts", claim.resource_id, claim.attempt);
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Permit(pub(super) Box<Held>);

/// Boxed, so that the gate's other variants stay small.
pub(super) struct Held {
    pub(super) claim: Claim,
    /// While it exists, the lease is renewed and duplicates wait for its end.
    pub(super) flight: Flight,
    /// Whether the claim may still act.
    pub(super) lease: Arc<Lease>,
    /// The request's fingerprint, for the replay cache.
    pub(super) fingerprint: Arc<Fingerprint>,
    /// When the key is forgotten, on this process's clock.
    pub(super) until: Instant,
}

/// One attempt at one key.
///
/// ```
/// use std::time::Duration;
///
/// use payonce_engine::Claim;
///
/// /// The other system forgets its idempotency keys after a day. If the age is not known, the claim may be as old.
/// fn may_call_again(claim: &Claim) -> bool {
///     claim.age.is_some_and(|age| age < Duration::from_secs(20 * 60 * 60))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key.
    pub scope: ScopedKey,
    /// 1 for the first attempt, and one more for each takeover.
    pub attempt: i32,
    /// The id of the resource that is created or changed.
    pub resource_id: String,
    /// The key's first use, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// When the key expires.
    pub expires_at: DateTime<Utc>,
    /// The key's age when this attempt took it, by the database's clock; zero for the first. `None` if that clock was stepped back,
    /// so that the age is not known. [`super::Engine::fence`] returns the present age.
    pub age: Option<Duration>,
}

impl Permit {
    /// The attempt that this permit is for.
    pub fn claim(&self) -> &Claim {
        &self.0.claim
    }

    /// The id of the resource that is created or changed.
    pub fn resource_id(&self) -> &str {
        &self.0.claim.resource_id
    }
}

/// The result of a settle.
///
/// ```
/// use payonce_engine::{Answer, Settled};
///
/// /// What to send. `None`: another owner is still working on it, so answer 409 with Retry-After.
/// fn to_send(settled: Settled) -> Option<Answer> {
///     match settled {
///         Settled::Stored(answer) => Some(answer),
///         Settled::Lost(answer) => answer,
///     }
/// }
/// assert_eq!(to_send(Settled::Lost(None)), None);
/// ```
#[must_use]
pub enum Settled {
    /// The outcome is stored.
    Stored(Answer),
    /// The claim had been taken over: nothing was changed. This is the new owner's answer; `None` while there is none.
    Lost(Option<Answer>),
}

/// The result of a release. [`Engine::release`](super::Engine::release) has an example.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// The key is as if it had never been used.
    Removed,
    /// The claim had been taken over: nothing was changed.
    Lost,
}
