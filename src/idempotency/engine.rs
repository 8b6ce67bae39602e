//! The engine: who executes a request, and what everybody else is told.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

use super::caller::Presence;
use super::clock::Moment;
use super::config::IdempotencyConfig;
use super::error::IdempotencyError;
use super::fingerprint::{
    Comparison, Fingerprint, FingerprintSecrets, Fingerprinted, Fingerprints, Signer,
};
use super::flights::{Boarding, Flight, Flights, Follower};
use super::gate::{Claim, Gate, Held, Permit, Plan};
use super::key::ScopedKey;
use super::lease::{Fence, Lease};
use super::record::{Answer, Outcome};
use super::replays::{Replays, until};
use super::store::{self, Abandoned, FoundKey, Inserted, NewKey, SeenKey, Standing};
use super::transaction::{Transaction, lend};
use crate::database::{self, Bounded, is_lock_timeout, is_transient, may_have_committed};

/// When a duplicate that found the first still at work should come back: by then most gateways have answered.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often a key may be found in use and then gone before this request gives its place up. Each turn needs somebody else's
/// release in between.
const MAX_TURNS: u32 = 20;

/// A commit that took this long may have waited for a standby that is gone, until somebody canceled the wait: PostgreSQL then
/// reports success with a warning, and the commit is not durable. It is waited for once more before anything rests on it.
pub(super) const SLOW_COMMIT: Duration = Duration::from_millis(10);

/// How long a lost database is asked again what became of a commit.
pub(super) const READ_BACK_PATIENCE: Duration = Duration::from_secs(5);

/// The engine. Cloning it is cheap and gives the same engine; each process of a service has one.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    pool: PgPool,
    config: IdempotencyConfig,
    signer: Signer,
    owner: Uuid,
    flights: Flights,
    replays: Replays,
    runtime: Handle,
    tasks: TaskTracker,
}

/// How long a duplicate waits for the first request's outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// As configured: [`IdempotencyConfig::patience`].
    #[default]
    Configured,
    /// Not longer than this, nor than configured.
    AtMost(Duration),
}

/// How a first request takes its key. The engine asks; what is written beside the key is the implementor's.
pub trait Claimant<T> {
    /// Inserts the key, and all that belongs to it, in one commit.
    fn try_claim(
        &mut self,
        key: NewKey,
    ) -> impl Future<Output = Result<Attempt<T>, IdempotencyError>> + Send;

    /// What the key made, where its record is gone.
    fn remembered(
        &mut self,
        scope: &ScopedKey,
    ) -> impl Future<Output = Result<Option<Remembered>, IdempotencyError>> + Send;

    /// Asked before an abandoned claim of the key is taken over. An error leaves the claim alone and is what the request is
    /// answered: return one where this process cannot go on with the resource.
    fn may_take_over(
        &mut self,
        scope: &ScopedKey,
        resource_id: &str,
    ) -> impl Future<Output = Result<(), IdempotencyError>> + Send;
}

/// What came of an attempt to take a key.
pub enum Attempt<T> {
    /// It is ours, in `PROCESSING`.
    Claimed {
        /// The key's moments.
        inserted: Inserted,
        /// What is being made or changed.
        resource_id: String,
        /// What the caller needs for the call.
        work: T,
    },
    /// It is ours, and final.
    Finished(Answer),
    /// What it makes was made long ago.
    Expired(Remembered),
    /// It is in use, and final.
    Found(FoundKey),
    /// It is in use, or its record is gone while what it made is there.
    InUse,
}

/// What a key made, as the caller's own tables remember it.
pub struct Remembered {
    /// Its id.
    pub resource_id: String,
    /// When it was made.
    pub created_at: chrono::DateTime<chrono::Utc>,
}

impl Engine {
    /// Starts an engine on the caller's database, whose schema has this crate's migrations.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime: transactions run in tasks of the one it was started in.
    pub fn new(pool: PgPool, config: IdempotencyConfig, secrets: &FingerprintSecrets) -> Self {
        let shared = Shared {
            pool,
            config,
            signer: Signer::new(secrets),
            owner: Uuid::now_v7(),
            flights: Flights::new(),
            replays: Replays::new(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
        };
        let engine = Self(Arc::new(shared));
        engine.renew_leases_while_alive();
        engine
    }

    /// Runs `work` once for this key, in one transaction, and gives everybody the answer it made.
    ///
    /// `work` gets the open transaction; what it writes commits together with the key and the answer. On
    /// [`Outcome::Failed`] its writes are undone and the answer is stored all the same. On `Err` nothing is stored, and
    /// the key may be used again. Begin, work and commit run in a task of their own: dropping this future stops nothing.
    ///
    /// ```no_run
    /// # use payonce::idempotency::*;
    /// # async fn order(engine: Engine, scoped_key: ScopedKey) -> Result<(), Box<dyn std::error::Error>> {
    /// let request = serde_json::json!({"sku": "tea", "quantity": 2});
    /// let answer = engine
    ///     .execute(&scoped_key, &request, async |mut tx| {
    ///         sqlx::query("insert into orders (sku, quantity) values ('tea', 2)").execute(&mut *tx).await?;
    ///         StoredResponse::json(201, &"ordered").map(Outcome::Completed).map_err(sqlx::Error::decode)
    ///     })
    ///     .await?;
    /// assert_eq!(answer.response.status, 201);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn execute<E, F, Fut>(
        &self,
        key: &ScopedKey,
        request: &(impl Fingerprinted + ?Sized),
        work: F,
    ) -> Result<Answer, IdempotencyError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Transaction) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Outcome, E>> + Send + 'static,
    {
        let plan = move |tx| {
            let outcome = work(tx);
            async move {
                outcome.await.map(|outcome| Plan::Finish {
                    resource_id: None,
                    outcome,
                })
            }
        };
        let signed = self.sign(key.clone(), request)?;
        let gate = match self.recall(&signed) {
            Some(gate) => gate,
            None => {
                let claimant = InOneTransaction(self.planned(plan));
                self.enter::<std::convert::Infallible>(signed, Wait::Configured, claimant)
                    .await?
            }
        };
        match gate {
            Gate::Done(answer) | Gate::Replay(answer) => Ok(answer),
            Gate::Mine {
                work: Some(never), ..
            } => match never {},
            Gate::Mine { work: None, .. } => Err(IdempotencyError::InProgress {
                retry_after: RETRY_AFTER,
            }),
            Gate::InProgress { retry_after } => Err(IdempotencyError::InProgress { retry_after }),
            Gate::Mismatch(mismatch) => Err(IdempotencyError::FingerprintMismatch {
                expected_hash: mismatch.expected_hash,
                actual_hash: mismatch.actual_hash,
                changed: mismatch.changed,
            }),
            Gate::Expired {
                resource_id,
                created_at,
            } => Err(IdempotencyError::Expired {
                resource_id,
                created_at,
            }),
        }
    }

    /// The first of two phases: takes the key, and commits what is about to be done together with it.
    ///
    /// `plan` gets the open transaction and says what is to happen; see [`Plan`]. It must not wait for anything but the
    /// database. Whoever gets [`Gate::Mine`] makes the call and then settles.
    pub async fn claim<T, E, F, Fut>(
        &self,
        key: &ScopedKey,
        request: &(impl Fingerprinted + ?Sized),
        wait: Wait,
        plan: F,
    ) -> Result<Gate<T>, IdempotencyError>
    where
        T: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
        F: FnOnce(Transaction) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Plan<T>, E>> + Send + 'static,
    {
        let signed = self.sign(key.clone(), request)?;
        if let Some(gate) = self.recall(&signed) {
            return Ok(gate);
        }
        self.enter(signed, wait, self.planned(plan)).await
    }

    /// How [`Engine::claim`] takes a key: for a caller of [`Engine::enter`] that has something to do before and after.
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

    /// Signs a request, which is the first thing that is done with each.
    pub fn sign(
        &self,
        key: ScopedKey,
        request: &(impl Fingerprinted + ?Sized),
    ) -> Result<SignedRequest, IdempotencyError> {
        let fingerprints = self.0.signer.sign(&key, request)?;
        Ok(SignedRequest { key, fingerprints })
    }

    /// What the replay cache knows of the key, without asking anybody: a replay or a mismatch.
    pub fn recall<T>(&self, signed: &SignedRequest) -> Option<Gate<T>> {
        let kept = self.0.replays.get(&signed.key)?;
        let gate = match signed.fingerprints.compare(&kept.fingerprint) {
            Comparison::Same => Gate::Replay(kept.answer.clone()),
            Comparison::Other(mismatch) => Gate::Mismatch(mismatch),
            Comparison::Unreadable => return None,
        };
        count(&signed.key, &gate, None);
        Some(gate)
    }

    /// The way through the gate that all operations share, for a request that [`Engine::recall`] did not know.
    pub async fn enter<T>(
        &self,
        signed: SignedRequest,
        wait: Wait,
        mut claimant: impl Claimant<T>,
    ) -> Result<Gate<T>, IdempotencyError> {
        let mut visit = Visit::new(self, signed, wait);
        let gate = loop {
            match self
                .0
                .flights
                .board(&visit.key, visit.fingerprints.current())
            {
                Boarding::Leader(flight) => {
                    break self.lead(&mut visit, flight, &mut claimant).await?;
                }
                Boarding::Follower(mut leader) => {
                    visit.waited = true;
                    if let Some(gate) = self.follow(&visit, &mut leader).await {
                        break gate;
                    }
                }
            }
        };
        visit.count(&gate);
        Ok(gate)
    }

    /// Waits for another request with the key in this process. Returns `None` where that one ended and left nothing.
    async fn follow<T>(&self, visit: &Visit, leader: &mut Follower) -> Option<Gate<T>> {
        let comparison = visit.fingerprints.compare(&leader.fingerprint);
        let waited = async {
            match comparison {
                // Only what has a claim stays and can be a mismatch. One that ends before leaves the key to this request.
                Comparison::Other(mismatch) => {
                    leader.claimed().await.then_some(Gate::Mismatch(mismatch))
                }
                // An unreadable one was found in the database: whoever comes to it there is told.
                Comparison::Same | Comparison::Unreadable => {
                    leader.landed().await.map(Gate::Replay)
                }
            }
        };
        timeout_at(visit.deadline, waited)
            .await
            .unwrap_or(Some(Gate::InProgress {
                retry_after: RETRY_AFTER,
            }))
    }

    /// Keeps a final answer for replays.
    pub(super) fn keep(
        &self,
        key: &ScopedKey,
        fingerprint: &Arc<Fingerprint>,
        answer: &Answer,
        until: Instant,
    ) {
        self.0.replays.keep(key, fingerprint, answer, until);
    }

    /// Asks the database, for this request and all that follow it.
    async fn lead<T>(
        &self,
        visit: &mut Visit,
        flight: Flight,
        claimant: &mut impl Claimant<T>,
    ) -> Result<Gate<T>, IdempotencyError> {
        for _ in 0..MAX_TURNS {
            failpoint!("claim-before");
            let (sent, taken) = (Instant::now(), Moment::now());
            let phase = phase!("claim", payonce.operation = visit.key.operation.as_str());
            let attempt = claimant.try_claim(visit.new_key(self)).await;
            drop(phase);
            let attempt = match attempt {
                Ok(attempt) => attempt,
                // The row is held by a transaction that is at work on it.
                Err(error) if error.database_error().is_some_and(is_lock_timeout) => break,
                Err(error) => return Err(error),
            };
            let met = match attempt {
                Attempt::Claimed {
                    inserted,
                    resource_id,
                    work,
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
                    let fingerprint = Arc::clone(visit.fingerprints.current());
                    let permit = self.permit(claim, flight, fingerprint, sent, taken);
                    return Ok(Gate::Mine {
                        permit,
                        work: Some(work),
                    });
                }
                Attempt::Finished(answer) => {
                    let until = until(sent, self.0.config.ttl);
                    self.keep(&visit.key, visit.fingerprints.current(), &answer, until);
                    flight.land(&answer);
                    return Ok(Gate::Done(answer));
                }
                Attempt::Expired(Remembered {
                    resource_id,
                    created_at,
                }) => {
                    self.wait_until_durable().await?;
                    return Ok(Gate::Expired {
                        resource_id,
                        created_at,
                    });
                }
                Attempt::Found(found) => visit.met(found, sent)?,
                Attempt::InUse => self.meet(visit, &flight, claimant).await?,
            };
            match met {
                Met::Answer(answer, until) => {
                    self.keep(&visit.key, visit.fingerprints.current(), &answer, until);
                    flight.land(&answer);
                    return Ok(Gate::Replay(answer));
                }
                Met::Mismatch(mismatch) => return Ok(Gate::Mismatch(mismatch)),
                Met::TakenOver(claim, sent, taken) => {
                    let fingerprint = Arc::clone(visit.fingerprints.current());
                    let permit = self.permit(claim, flight, fingerprint, sent, taken);
                    return Ok(Gate::Mine { permit, work: None });
                }
                Met::StillAtWork => break,
                Met::Nobody => {
                    flight.sees_claim(false);
                    if let Some(Remembered {
                        resource_id,
                        created_at,
                    }) = claimant.remembered(&visit.key).await?
                    {
                        self.wait_until_durable().await?;
                        return Ok(Gate::Expired {
                            resource_id,
                            created_at,
                        });
                    }
                }
            }
        }
        Ok(Gate::InProgress {
            retry_after: RETRY_AFTER,
        })
    }

    /// Meets the record that is in this request's way: replays it, refuses, takes over, or waits without a connection.
    async fn meet<T>(
        &self,
        visit: &mut Visit,
        flight: &Flight,
        claimant: &mut impl Claimant<T>,
    ) -> Result<Met, IdempotencyError> {
        loop {
            let sent = Instant::now();
            let Some(seen) = self.see(&visit.key).await? else {
                return Ok(Met::Nobody);
            };
            if matches!(seen.standing, Standing::PastItsTime) {
                return Ok(Met::Nobody);
            }
            match visit.fingerprints.compare(&seen.fingerprint) {
                // Whoever comes with another request is refused meanwhile.
                Comparison::Same => flight.sees_claim(true),
                Comparison::Other(mismatch) => return Ok(Met::Mismatch(mismatch)),
                Comparison::Unreadable => return Err(IdempotencyError::Unreadable),
            }
            if let Some(answer) = seen.answer() {
                return Ok(Met::Answer(answer, until(sent, seen.left)));
            }
            if matches!(seen.standing, Standing::Abandoned) {
                let resource_id = seen.resource_id.as_deref().unwrap_or_default();
                claimant.may_take_over(&visit.key, resource_id).await?;
                let (sent, taken) = (Instant::now(), Moment::now());
                if let Some(claim) = self.take(&visit.key).await? {
                    return Ok(Met::TakenOver(claim, sent, taken));
                }
            }
            visit.waited = true;
            let next = Instant::now() + self.0.config.retry_interval;
            if next > visit.deadline {
                return Ok(Met::StillAtWork);
            }
            sleep_until(next).await;
        }
    }

    /// Looks at a key. What is no longer under way is only returned once it is durable: an answer may rest on it.
    async fn see(&self, key: &ScopedKey) -> Result<Option<SeenKey>, IdempotencyError> {
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

    /// Takes an abandoned claim over. Where that cannot be known, the claim may be ours, and recovery goes on with it.
    async fn take(&self, key: &ScopedKey) -> Result<Option<Claim>, IdempotencyError> {
        let mut connection = database::acquire(&self.0.pool).await?;
        let (owner, lock_timeout) = (self.0.owner, self.0.config.lock_timeout);
        let taken = store::take_over(&mut connection, key, owner, lock_timeout)
            .bounded()
            .await;
        match taken {
            // Whoever holds the row is at work on it.
            Err(error) if is_lock_timeout(&error) => Ok(None),
            Err(error) if may_have_committed(&error) => {
                Err(IdempotencyError::OutcomeUnknown(Box::new(error.into())))
            }
            taken => Ok(taken?),
        }
    }

    /// Where a commit that was begun at `since` was slow, waits once more until it is durable.
    pub(super) async fn make_certain(&self, since: Instant) -> Result<(), IdempotencyError> {
        if since.elapsed() < SLOW_COMMIT {
            return Ok(());
        }
        self.wait_until_durable()
            .await
            .map_err(|lost| IdempotencyError::OutcomeUnknown(Box::new(lost.into())))
    }

    /// Returns when what was read before is durable, so that an answer may rest on it.
    pub(super) async fn wait_until_durable(&self) -> sqlx::Result<()> {
        let mut connection = database::acquire(&self.0.pool).await?;
        store::wait_until_durable(&mut connection).bounded().await
    }

    fn permit(
        &self,
        claim: Claim,
        flight: Flight,
        fingerprint: Arc<Fingerprint>,
        sent: Instant,
        taken: Moment,
    ) -> Permit {
        let lease = Lease::new(claim.attempt, taken);
        flight.claimed(&lease);
        let lifetime = (claim.expires_at - claim.created_at)
            .to_std()
            .unwrap_or_default();
        let until = until(sent, lifetime.saturating_sub(claim.age.unwrap_or(lifetime)));
        Permit(Box::new(Held {
            claim,
            flight,
            lease,
            fingerprint,
            until,
        }))
    }

    /// Takes over a claim whose owner has been silent for its whole lease. Returns `None` where it is somebody's, here or
    /// elsewhere, or final.
    pub async fn take_over(&self, key: &ScopedKey) -> Result<Option<Permit>, IdempotencyError> {
        self.take_over_guarded(key, |_| std::future::ready(Ok(())))
            .await
    }

    /// As [`Engine::take_over`], and `may_take_over` is asked before, with [`Permit::resource_id`]. Its error leaves the claim
    /// alone and is returned.
    pub async fn take_over_guarded<G, Guarded>(
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
        let (sent, taken) = (Instant::now(), Moment::now());
        let claim = self.take(key).await?;
        Ok(claim.map(|claim| self.permit(claim, flight, seen.fingerprint, sent, taken)))
    }

    /// Whether a claim may still act: to be asked right before each call that it makes.
    ///
    /// An owner that stood still, or whose machine was suspended, may have been succeeded meanwhile. While its lease was
    /// confirmed recently enough, this asks nobody. Otherwise the lease is renewed first, which fails where the claim was taken
    /// over. An error means that the database could not be asked: the caller must not make its call.
    pub async fn fence(&self, permit: &Permit) -> Result<Fence, IdempotencyError> {
        let Held { claim, lease, .. } = &*permit.0;
        let is_confirmed = || {
            lease
                .unconfirmed_for()
                .map(|since| since < self.0.config.lock_timeout)
        };
        if is_confirmed() == Some(false) {
            self.renew(&[(claim.scope.clone(), Arc::clone(lease))])
                .await?;
        }
        Ok(match is_confirmed() {
            Some(true) => Fence::Held {
                age: claim.age.map(|age| age.saturating_add(lease.held_for())),
            },
            // Renewed, and silent again since: whoever may take it over may have.
            Some(false) | None => Fence::Lost,
        })
    }

    /// Keys of these operations that can be taken over, oldest first, `limit` at most, from the one after `after` on.
    pub async fn abandoned(
        &self,
        operations: &[&str],
        after: Option<&Abandoned>,
        limit: u32,
    ) -> Result<Vec<Abandoned>, IdempotencyError> {
        let mut connection = database::acquire(&self.0.pool).await?;
        Ok(
            store::list_abandoned(&mut connection, operations, after, limit.into())
                .bounded()
                .await?,
        )
    }

    /// How many keys are in `PROCESSING`, and for how long the oldest has been.
    pub async fn unsettled(&self) -> Result<(u64, Duration), IdempotencyError> {
        let mut connection = database::acquire(&self.0.pool).await?;
        let (count, seconds) = store::count_unsettled(&mut connection).bounded().await?;
        Ok((
            count.unsigned_abs(),
            Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        ))
    }

    /// The settings that it runs with.
    pub fn config(&self) -> &IdempotencyConfig {
        &self.0.config
    }

    /// The ids of its secrets; the first signs.
    pub(super) fn secret_ids(&self) -> Vec<String> {
        self.0.signer.secret_ids()
    }

    /// Who this engine is, as `idempotency_keys.owner` has it.
    pub fn owner(&self) -> Uuid {
        self.0.owner
    }

    /// The database that it works on.
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// Runs a future in a task of the engine's runtime, which nothing but the end of the process stops. A panic in it becomes
    /// an error.
    pub async fn run<T, Fut>(&self, future: Fut) -> Result<T, IdempotencyError>
    where
        T: Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        // Boxed: each wrapper that follows would move the whole of it.
        let presence = Presence::new();
        let future = Box::pin(presence.of(future)).in_current_span();
        let task = self.0.tasks.spawn_on(future, &self.0.runtime);
        task.await
            .map_err(|_| IdempotencyError::Aborted("its task panicked, or the process is ending"))
    }

    /// Runs a future on the engine's runtime for as long as the process lives, or until it ends by itself.
    pub(super) fn spawn_background(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(future);
    }

    /// Waits until all tasks have ended. Call it when no further requests come.
    pub async fn finish(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn renew_leases_while_alive(&self) {
        let shared = Arc::downgrade(&self.0);
        let mut ticks = {
            let _entered = self.0.runtime.enter();
            interval((self.0.config.lock_timeout / 4).max(Duration::from_millis(10)))
        };
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.0.runtime.spawn(async move {
            loop {
                ticks.tick().await;
                let Some(shared) = shared.upgrade() else { return };
                if let Err(error) = Self(shared).renew_leases().await {
                    tracing::warn!(%error, "leases could not be renewed; their claims may be taken over");
                }
            }
        });
    }

    /// Gives all claims at work here their full lease again, in one statement. Younger ones have most of theirs left.
    async fn renew_leases(&self) -> sqlx::Result<()> {
        let due = self
            .0
            .flights
            .unconfirmed_for(self.0.config.lock_timeout / 4);
        self.renew(&due).await
    }

    /// Renews these leases. Those whose claim is no longer ours are lost from now on.
    async fn renew(&self, due: &[(ScopedKey, Arc<Lease>)]) -> sqlx::Result<()> {
        if due.is_empty() {
            return Ok(());
        }
        let mut connection = database::acquire(&self.0.pool).await?;
        let sent = Moment::now();
        let keys: Vec<(&ScopedKey, i32)> = due
            .iter()
            .map(|(key, lease)| (key, lease.attempt))
            .collect();
        let (owner, lock_timeout) = (self.0.owner, self.0.config.lock_timeout);
        let renewed = store::renew_leases(&mut connection, owner, &keys, lock_timeout)
            .bounded()
            .await?;
        let renewed: HashSet<ScopedKey> = renewed.into_iter().collect();
        for (key, lease) in due {
            if renewed.contains(key) {
                lease.confirm(sent);
            } else {
                lease.lose();
            }
        }
        Ok(())
    }

    /// Locks the key's row and reads it, which waits for a commit that may still be under way on it, and until what is read is
    /// durable. For as long as the database can't be asked, it is asked again, up to [`READ_BACK_PATIENCE`].
    pub(super) async fn read_back(&self, key: &ScopedKey) -> sqlx::Result<Option<SeenKey>> {
        self.ask_until_answered(|| read_locked(self.0.pool.clone(), key.clone()))
            .await
    }

    /// As [`Engine::read_back`], for a claim whose commit's answer was lost: it also waits for a commit that has inserted the key
    /// and is still under way. `None` is certain then, for as long as nobody sends the claim again.
    async fn read_back_claim(&self, key: &NewKey) -> sqlx::Result<Option<SeenKey>> {
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

    /// What became of a claim whose commit's answer was lost: its moments, if it is there. Only this claim has its owner and
    /// its resource.
    ///
    /// Returns `None` where it is not there. A statement that the server has not begun yet may still bring it: send the claim
    /// again, or answer that its outcome is not known.
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::OutcomeUnknown`] where the database cannot be asked.
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

/// Reads a claim whose commit may still be under way. A row that is not committed yet is invisible to a lock, but an insert of the
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

/// What a request met in the database.
enum Met {
    /// Until when it may be kept.
    Answer(Answer, Instant),
    Mismatch(super::Mismatch),
    /// When it was asked for, on either clock.
    TakenOver(Claim, Instant, Moment),
    StillAtWork,
    Nobody,
}

/// A request that was signed: which key it comes with, and what it asks for.
pub struct SignedRequest {
    key: ScopedKey,
    fingerprints: Fingerprints,
}

impl SignedRequest {
    /// The key that it comes with.
    pub fn key(&self) -> &ScopedKey {
        &self.key
    }
}

/// One request at the gate.
struct Visit {
    key: ScopedKey,
    fingerprints: Fingerprints,
    deadline: Instant,
    arrived: Instant,
    waited: bool,
}

impl Visit {
    fn new(engine: &Engine, signed: SignedRequest, wait: Wait) -> Self {
        let SignedRequest { key, fingerprints } = signed;
        let patience = match wait {
            Wait::Configured => engine.0.config.patience(),
            Wait::AtMost(most) => most.min(engine.0.config.patience()),
        };
        let arrived = Instant::now();
        Self {
            key,
            fingerprints,
            deadline: arrived + patience,
            arrived,
            waited: false,
        }
    }

    fn new_key(&self, engine: &Engine) -> NewKey {
        NewKey {
            scope: self.key.clone(),
            fingerprint: Arc::clone(self.fingerprints.current()),
            owner: engine.0.owner,
            lock_timeout: engine.0.config.lock_timeout,
            ttl: engine.0.config.ttl,
        }
    }

    /// What a final key means for this request. `sent`: when it was asked for.
    fn met(&self, found: FoundKey, sent: Instant) -> Result<Met, IdempotencyError> {
        match self.fingerprints.compare(&found.fingerprint) {
            Comparison::Same => Ok(Met::Answer(found.answer, until(sent, found.left))),
            Comparison::Other(mismatch) => Ok(Met::Mismatch(mismatch)),
            Comparison::Unreadable => Err(IdempotencyError::Unreadable),
        }
    }

    fn count<T>(&self, gate: &Gate<T>) {
        count(&self.key, gate, self.waited.then(|| self.arrived.elapsed()));
    }
}

/// What can come of a request at the gate, in `payonce_idempotency_checks_total`.
pub const GATE_RESULTS: [&str; 6] = ["miss", "hit", "waited", "mismatch", "in_use", "takeover"];

fn count<T>(key: &ScopedKey, gate: &Gate<T>, waited: Option<Duration>) {
    let result = match gate {
        Gate::Mine { work: Some(_), .. } | Gate::Done(_) => "miss",
        Gate::Mine { work: None, .. } => "takeover",
        Gate::Replay(_) if waited.is_some() => "waited",
        Gate::Replay(_) | Gate::Expired { .. } => "hit",
        Gate::Mismatch(_) => "mismatch",
        Gate::InProgress { .. } => "in_use",
    };
    // On the request's line in the log, where its span has such a field.
    tracing::Span::current().record("idempotency", result);
    let operation = key.operation.clone();
    metrics::counter!("payonce_idempotency_checks_total", "operation" => operation, "result" => result)
        .increment(1);
    if let Some(waited) = waited {
        metrics::histogram!("payonce_idempotency_wait_seconds").record(waited.as_secs_f64());
    }
}

/// The claim of one transaction of its own, in which the caller plans.
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
        // The plan looks for itself, and says `Plan::Expired`.
        Ok(None)
    }

    async fn may_take_over(&mut self, _: &ScopedKey, _: &str) -> Result<(), IdempotencyError> {
        Ok(())
    }
}

/// The claim of work in one transaction. It leaves no unfinished claim, so an abandoned one belongs to a two-phase operation of the
/// same name, whose own recovery knows what to do.
struct InOneTransaction<C>(C);

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

/// One transaction: the key, the caller's writes and, where the outcome is known, the answer. Gives the plan back where the
/// key was in use.
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
    let Some(inserted) = store::insert_key(&mut transaction, &key).bounded().await? else {
        transaction.rollback().await?;
        return Ok((Attempt::InUse, Some(plan)));
    };
    sqlx::raw_sql("savepoint payonce_work")
        .execute(&mut *transaction)
        .bounded()
        .await?;
    let (mut transaction, planned) = lend(transaction, plan).await?;
    let planned = planned.map_err(|error| work_error(error.into()));
    let attempt = match planned.and_then(Plan::checked) {
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
            if matches!(outcome, Outcome::Failed(_)) {
                sqlx::raw_sql("rollback to savepoint payonce_work")
                    .execute(&mut *transaction)
                    .bounded()
                    .await?;
            }
            let scope = &key.scope;
            store::finish_key(
                &mut transaction,
                scope,
                key.owner,
                1,
                resource_id.as_deref(),
                &outcome,
            )
            .bounded()
            .await?;
            Attempt::Finished(Answer {
                response: Arc::new(outcome.into_response()),
                replayed: false,
                expires_at: inserted.expires_at,
            })
        }
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
        Err(error) => {
            transaction.rollback().await?;
            return Err(error);
        }
    };
    failpoint!("claim-before-commit");
    let begun = Instant::now();
    match transaction.commit().await {
        Ok(()) => {
            engine.make_certain(begun).await?;
            Ok((attempt, None))
        }
        Err(error) if may_have_committed(&error) => match engine.read_back_claim(&key).await {
            Ok(Some(seen)) if is_this_claim(&seen, &key, &inserted) => Ok((attempt, None)),
            Ok(_) => Err(error.into()),
            Err(lost) => Err(IdempotencyError::OutcomeUnknown(Box::new(lost.into()))),
        },
        Err(error) => Err(error.into()),
    }
}

/// The first use of a key is known by its owner and its moment; nobody else's has both.
pub(super) fn is_this_claim(seen: &SeenKey, key: &NewKey, inserted: &Inserted) -> bool {
    seen.owner == key.owner && seen.attempt == 1 && seen.created_at == inserted.created_at
}

/// A failed query in the caller's work is the database's failure, not the work's.
pub(super) fn work_error(error: Box<dyn std::error::Error + Send + Sync>) -> IdempotencyError {
    match error.downcast::<sqlx::Error>() {
        Ok(error) => IdempotencyError::Database(*error),
        Err(error) => IdempotencyError::Work(error),
    }
}
