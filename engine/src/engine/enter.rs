//! The path of a request through the gate: the decision, and then its effects.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Engine, RETRY_AFTER};
use crate::claimant::{Attempt, Claimant, Remembered};
use crate::clock::Moment;
use crate::database::is_lock_timeout;
use crate::error::IdempotencyError;
use crate::fingerprint::{Comparison, Fingerprint, Fingerprints, Mismatch};
use crate::flights::{Boarding, Flight, Follower};
use crate::gate::{Claim, Gate, Held, Permit};
use crate::key::ScopedKey;
use crate::lease::Lease;
use crate::record::Answer;
use crate::replays::until;
use crate::store::{FoundKey, Inserted, NewKey, Standing};

/// How often a request may find a key in use and then gone before it gives up. Each time, another request must have released the
/// key in between.
const MAX_TURNS: u32 = 20;

/// How long a duplicate waits for the first request's outcome.
///
/// ```
/// use std::time::Duration;
///
/// use payonce_engine::Wait;
///
/// // A webhook's sender repeats anyway: do not keep it waiting.
/// let wait = Wait::AtMost(Duration::ZERO);
/// assert_ne!(wait, Wait::default());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// The configured time: [`IdempotencyConfig::patience`](crate::IdempotencyConfig::patience).
    #[default]
    Configured,
    /// At most this time, and at most the configured time.
    AtMost(Duration),
}

/// A signed request: its key and its fingerprint.
///
/// ```no_run
/// # async fn order(engine: payonce_engine::Engine, key: payonce_engine::ScopedKey) -> Result<(), payonce_engine::IdempotencyError> {
/// use payonce_engine::{Outcome, StoredResponse, Transaction, Wait};
///
/// let signed = engine.sign(key, "tea")?.with_ttl(std::time::Duration::from_secs(3600));
/// let work = async |_: Transaction| StoredResponse::json(201, &"ordered").map(Outcome::Completed);
/// let answer = engine.execute_signed(signed, Wait::Configured, work).await?;
/// # drop(answer);
/// # Ok(())
/// # }
/// ```
pub struct SignedRequest {
    pub(super) key: ScopedKey,
    pub(super) fingerprints: Fingerprints,
    /// `None` for the configured time.
    pub(super) ttl: Option<Duration>,
}

impl SignedRequest {
    /// The request's key.
    pub fn key(&self) -> &ScopedKey {
        &self.key
    }

    /// Sets how long the key is remembered if this request is its first, instead of
    /// [`IdempotencyConfig::ttl`](crate::IdempotencyConfig::ttl). The time begins when the key is taken. A later request changes
    /// nothing of it.
    ///
    /// ```no_run
    /// # fn sign(engine: payonce_engine::Engine, key: payonce_engine::ScopedKey) -> Result<(), payonce_engine::IdempotencyError> {
    /// use std::time::Duration;
    ///
    /// // A cart's key is not needed after an hour.
    /// let signed = engine.sign(key, "tea")?.with_ttl(Duration::from_secs(60 * 60));
    /// # drop(signed);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

/// When the claim was sent to the database, on either clock: the claim is no older.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) sent: Instant,
    pub(super) taken: Moment,
}

impl Asked {
    pub(super) fn now() -> Self {
        Self {
            sent: Instant::now(),
            taken: Moment::now(),
        }
    }
}

/// The decision about a request that asked the database.
enum Decision<T> {
    Claimed {
        inserted: Inserted,
        resource_id: String,
        work: T,
        asked: Asked,
    },
    TakenOver {
        claim: Claim,
        asked: Asked,
    },
    Answered {
        answer: Answer,
        /// Until when it may be kept.
        until: Instant,
    },
    Mismatch(Mismatch),
    Expired(Remembered),
    InProgress,
}

impl Engine {
    /// Looks in the replay cache alone, without asking the database: an answer or a mismatch.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # fn replay(engine: Engine, signed: SignedRequest) -> Option<Answer> {
    /// // Before anything that costs a query or a call, such as turning a card into a token.
    /// match engine.recall::<()>(&signed)? {
    ///     Gate::Answered(answer) => Some(answer),
    ///     _ => None,
    /// }
    /// # }
    /// ```
    pub fn recall<T>(&self, signed: &SignedRequest) -> Option<Gate<T>> {
        let kept = self.0.replays.get(&signed.key)?;
        let gate = match signed.fingerprints.compare(&kept.fingerprint) {
            Comparison::Same => Gate::Answered(kept.answer.clone()),
            Comparison::Other(mismatch) => Gate::Mismatch(mismatch),
            Comparison::Unreadable => return None,
        };
        count(&signed.key, &gate, None);
        Some(gate)
    }

    /// The path through the gate that all operations share, for a request that [`Engine::recall`] did not answer.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn order(engine: Engine, signed: SignedRequest) -> Result<(), IdempotencyError> {
    /// let plan = async |_: Transaction| Ok::<_, sqlx::Error>(Plan::Call { resource_id: "parcel-7".to_owned(), work: () });
    /// let gate = match engine.recall(&signed) {
    ///     Some(gate) => gate,
    ///     None => engine.enter(signed, Wait::Configured, engine.planned(plan)).await?,
    /// };
    /// # drop(gate);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`IdempotencyError`], as for [`Engine::claim`], and those of the [`Claimant`].
    pub async fn enter<T>(
        &self,
        signed: SignedRequest,
        wait: Wait,
        mut claimant: impl Claimant<T>,
    ) -> Result<Gate<T>, IdempotencyError> {
        let mut visit = Visit::new(self, signed, wait);
        let gate = loop {
            let fingerprint = visit.fingerprints.current();
            match self.0.flights.board(&visit.key, fingerprint) {
                Boarding::Leader(flight) => {
                    let decision = self.decide(&mut visit, &flight, &mut claimant).await?;
                    break self.carry_out(&visit, flight, decision).await?;
                }
                Boarding::Follower(mut leader) => {
                    visit.waited = true;
                    if let Some(gate) = Box::pin(self.follow(&visit, &mut leader)).await {
                        break gate;
                    }
                }
            }
        };
        visit.count(&gate);
        Ok(gate)
    }

    /// Waits for another request with the key in this process. Returns `None` if that one ended and left nothing.
    async fn follow<T>(&self, visit: &Visit, leader: &mut Follower) -> Option<Gate<T>> {
        let comparison = visit.fingerprints.compare(&leader.fingerprint);
        let waited = async {
            match comparison {
                // Only a request with a claim can make this one a mismatch. One that ends before its claim leaves the key to this
                // request.
                Comparison::Other(mismatch) => {
                    leader.claimed().await.then_some(Gate::Mismatch(mismatch))
                }
                // An unreadable fingerprint came from the database. A request that asks the database gets the error.
                Comparison::Same | Comparison::Unreadable => {
                    leader.landed().await.map(Gate::Answered)
                }
            }
        };
        timeout_at(visit.deadline, waited)
            .await
            .unwrap_or(Some(Gate::InProgress {
                retry_after: RETRY_AFTER,
            }))
    }

    /// Asks the database, for this request and all its followers.
    async fn decide<T>(
        &self,
        visit: &mut Visit,
        flight: &Flight,
        claimant: &mut impl Claimant<T>,
    ) -> Result<Decision<T>, IdempotencyError> {
        for _ in 0..MAX_TURNS {
            if let Some(decision) = self.try_claim(visit, claimant).await? {
                return Ok(decision);
            }
            // What only a key in use needs is boxed: every request would carry room for it.
            if let Some(decision) = Box::pin(self.look(visit, flight, claimant)).await? {
                return Ok(decision);
            }
            flight.sees_claim(false);
            if let Some(remembered) = Box::pin(claimant.remembered(&visit.key)).await? {
                return Ok(Decision::Expired(remembered));
            }
        }
        Ok(Decision::InProgress)
    }

    /// Takes the key if it is free. Returns `None` if it is in use.
    async fn try_claim<T>(
        &self,
        visit: &Visit,
        claimant: &mut impl Claimant<T>,
    ) -> Result<Option<Decision<T>>, IdempotencyError> {
        failpoint!("claim-before");
        let asked = Asked::now();
        let phase = phase!("claim", payonce.operation = visit.key.operation.as_str());
        let attempt = claimant.try_claim(visit.new_key(self)).await;
        drop(phase);
        Ok(Some(match attempt {
            Ok(Attempt::Claimed {
                inserted,
                resource_id,
                work,
            }) => Decision::Claimed {
                inserted,
                resource_id,
                work,
                asked,
            },
            Ok(Attempt::Finished(answer)) => {
                failpoint!("claim-committed");
                Decision::Answered {
                    answer,
                    until: until(asked.sent, visit.ttl),
                }
            }
            Ok(Attempt::Expired(remembered)) => Decision::Expired(remembered),
            Ok(Attempt::Found(found)) => visit.of_found(found, asked.sent)?,
            Ok(Attempt::InUse) => return Ok(None),
            // The row is held by a transaction that is at work on it.
            Err(error) if error.database_error().is_some_and(is_lock_timeout) => {
                Decision::InProgress
            }
            Err(error) => return Err(error),
        }))
    }

    /// Reads the record under this key repeatedly until it decides this request: an answer, a mismatch, a takeover, or the end of
    /// the wait. It holds no connection between reads. Returns `None` if the record is gone.
    async fn look<T>(
        &self,
        visit: &mut Visit,
        flight: &Flight,
        claimant: &mut impl Claimant<T>,
    ) -> Result<Option<Decision<T>>, IdempotencyError> {
        loop {
            let sent = Instant::now();
            let Some(seen) = self.see(&visit.key).await? else {
                return Ok(None);
            };
            if matches!(seen.standing, Standing::Expired) {
                visit.has_expired = true;
                return Ok(None);
            }
            match visit.fingerprints.compare(&seen.fingerprint) {
                // From here on, requests with other content are refused.
                Comparison::Same => flight.sees_claim(true),
                Comparison::Other(mismatch) => return Ok(Some(Decision::Mismatch(mismatch))),
                Comparison::Unreadable => return Err(IdempotencyError::Unreadable),
            }
            if let Some(answer) = seen.answer() {
                let until = until(sent, seen.left);
                return Ok(Some(Decision::Answered { answer, until }));
            }
            if matches!(seen.standing, Standing::Abandoned) {
                let resource_id = seen.resource_id.as_deref().unwrap_or_default();
                claimant.may_take_over(&visit.key, resource_id).await?;
                let asked = Asked::now();
                if let Some(claim) = self.take(&visit.key).await? {
                    return Ok(Some(Decision::TakenOver { claim, asked }));
                }
            }
            visit.waited = true;
            let next = Instant::now() + self.0.config.retry_interval;
            if next > visit.deadline {
                return Ok(Some(Decision::InProgress));
            }
            sleep_until(next).await;
        }
    }

    /// Carries out the decision: all effects in this process are here.
    async fn carry_out<T>(
        &self,
        visit: &Visit,
        flight: Flight,
        decision: Decision<T>,
    ) -> Result<Gate<T>, IdempotencyError> {
        let fingerprint = visit.fingerprints.current();
        Ok(match decision {
            Decision::Claimed {
                inserted,
                resource_id,
                work,
                asked,
            } => {
                failpoint!("claim-committed");
                let claim = Claim {
                    scope: visit.key.clone(),
                    attempt: 1,
                    resource_id,
                    created_at: inserted.created_at,
                    expires_at: inserted.expires_at,
                    age: Some(Duration::ZERO),
                };
                let permit = self.permit(claim, flight, Arc::clone(fingerprint), asked);
                Gate::Claimed { permit, work }
            }
            Decision::TakenOver { claim, asked } => {
                Gate::TakenOver(self.permit(claim, flight, Arc::clone(fingerprint), asked))
            }
            Decision::Answered { answer, until } => {
                self.keep(&visit.key, fingerprint, &answer, until);
                flight.land(&answer);
                Gate::Answered(answer)
            }
            Decision::Mismatch(mismatch) => Gate::Mismatch(mismatch),
            Decision::Expired(Remembered {
                resource_id,
                created_at,
            }) => {
                Box::pin(self.wait_until_durable()).await?;
                Gate::Expired {
                    resource_id,
                    created_at,
                }
            }
            Decision::InProgress => Gate::InProgress {
                retry_after: RETRY_AFTER,
            },
        })
    }

    pub(super) fn permit(
        &self,
        claim: Claim,
        flight: Flight,
        fingerprint: Arc<Fingerprint>,
        asked: Asked,
    ) -> Permit {
        let lease = Lease::new(claim.attempt, asked.taken);
        flight.claimed(&lease);
        let lifetime = (claim.expires_at - claim.created_at)
            .to_std()
            .unwrap_or_default();
        let until = until(
            asked.sent,
            lifetime.saturating_sub(claim.age.unwrap_or(lifetime)),
        );
        Permit(Box::new(Held {
            claim,
            flight,
            lease,
            fingerprint,
            until,
        }))
    }
}

/// One request at the gate.
struct Visit {
    key: ScopedKey,
    fingerprints: Fingerprints,
    ttl: Duration,
    deadline: Instant,
    arrived: Instant,
    waited: bool,
    /// The key's record was found, and has expired.
    has_expired: bool,
}

impl Visit {
    fn new(engine: &Engine, signed: SignedRequest, wait: Wait) -> Self {
        let SignedRequest {
            key,
            fingerprints,
            ttl,
        } = signed;
        let patience = match wait {
            Wait::Configured => engine.0.config.patience(),
            Wait::AtMost(most) => most.min(engine.0.config.patience()),
        };
        let arrived = Instant::now();
        Self {
            key,
            fingerprints,
            ttl: ttl.unwrap_or(engine.0.config.ttl),
            deadline: arrived + patience,
            arrived,
            waited: false,
            has_expired: false,
        }
    }

    fn new_key(&self, engine: &Engine) -> NewKey {
        NewKey {
            scope: self.key.clone(),
            fingerprint: Arc::clone(self.fingerprints.current()),
            owner: engine.0.owner,
            lock_timeout: engine.0.config.lock_timeout,
            ttl: self.ttl,
            has_expired: self.has_expired,
        }
    }

    /// The decision for this request when its key is final. `sent`: when the database was asked.
    fn of_found<T>(&self, found: FoundKey, sent: Instant) -> Result<Decision<T>, IdempotencyError> {
        match self.fingerprints.compare(&found.fingerprint) {
            Comparison::Same => Ok(Decision::Answered {
                answer: found.answer,
                until: until(sent, found.left),
            }),
            Comparison::Other(mismatch) => Ok(Decision::Mismatch(mismatch)),
            Comparison::Unreadable => Err(IdempotencyError::Unreadable),
        }
    }

    fn count<T>(&self, gate: &Gate<T>) {
        count(&self.key, gate, self.waited.then(|| self.arrived.elapsed()));
    }
}

/// The results of a request at the gate, as labels of `payonce_idempotency_checks_total`.
///
/// ```
/// use payonce_engine::records::GATE_RESULTS;
///
/// assert!(GATE_RESULTS.contains(&"mismatch"));
/// ```
pub const GATE_RESULTS: [&str; 6] = ["miss", "hit", "waited", "mismatch", "in_use", "takeover"];

fn count<T>(key: &ScopedKey, gate: &Gate<T>, waited: Option<Duration>) {
    let result = match gate {
        Gate::Claimed { .. } => "miss",
        Gate::TakenOver(_) => "takeover",
        Gate::Answered(answer) if !answer.replayed => "miss",
        Gate::Answered(_) if waited.is_some() => "waited",
        Gate::Answered(_) | Gate::Expired { .. } => "hit",
        Gate::Mismatch(_) => "mismatch",
        Gate::InProgress { .. } => "in_use",
    };
    // Recorded in the request's span, for its log line, if the span has such a field.
    tracing::Span::current().record("idempotency", result);
    let operation = key.operation.clone();
    metrics::counter!("payonce_idempotency_checks_total", "operation" => operation, "result" => result)
        .increment(1);
    if let Some(waited) = waited {
        metrics::histogram!("payonce_idempotency_wait_seconds").record(waited.as_secs_f64());
    }
}
