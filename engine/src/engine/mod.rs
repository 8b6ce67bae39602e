//! The engine: which request executes, and how all the others are answered.
//!
//! * `enter`: the path of a request through the gate.
//! * `planned`: claims of one transaction, in which the caller plans the work.
//! * `takeover`: takeovers of abandoned claims, and leases.
//! * `read_back`: whether a commit happened, and whether it is durable.
//! * `renewal`: leases are renewed while their owner is alive.
//! * `transact`: one transaction without a key.

mod enter;
mod planned;
mod read_back;
mod renewal;
mod takeover;
#[cfg(test)]
mod tests;
mod transact;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use uuid::Uuid;

pub use self::enter::{GATE_RESULTS, SignedRequest, Wait};
use self::planned::InOneTransaction;
#[cfg(test)]
pub(crate) use self::planned::is_this_claim;
pub(crate) use self::read_back::SLOW_COMMIT;
use crate::caller::Presence;
use crate::config::IdempotencyConfig;
use crate::database::{self, Distribution, Nodes, UnfitPool};
use crate::error::IdempotencyError;
use crate::fingerprint::{Fingerprint, FingerprintSecrets, Fingerprinted, Signer};
use crate::flights::Flights;
use crate::gate::{Gate, Plan};
use crate::key::ScopedKey;
use crate::record::{Answer, Outcome};
use crate::replays::Replays;
use crate::transaction::Transaction;

/// When a duplicate of a request in progress should be sent again: by then most calls have ended.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The engine. Cloning it is cheap and gives the same engine; each process of a service has one.
///
/// ```no_run
/// # async fn serve(_: payonce_engine::Engine) {}
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use payonce_engine::{Engine, FingerprintSecrets, IdempotencyConfig};
///
/// let database = std::env::var("DATABASE_URL")?.parse()?;
/// let secrets = FingerprintSecrets::new("the same on each node");
/// let engine = Engine::connect(database, 20, IdempotencyConfig::default(), &secrets).await?;
/// // Each handler gets a clone.
/// serve(engine.clone()).await;
/// // A handler whose client has hung up may still be running.
/// engine.finish().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    pool: PgPool,
    distribution: Distribution,
    /// Made when it is first asked for: one server has none.
    nodes: OnceLock<Nodes>,
    config: IdempotencyConfig,
    signer: Signer,
    owner: Uuid,
    flights: Flights,
    replays: Replays,
    runtime: Handle,
    tasks: TaskTracker,
}

impl Engine {
    /// Connects to a database that has the [engine's tables](crate::migrate()), and starts an engine on a pool of its own that keeps
    /// the [contract](database#what-the-engine-needs-of-a-pool).
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use payonce_engine::{Engine, FingerprintSecrets, IdempotencyConfig, UnfitPool};
    ///
    /// let database = std::env::var("DATABASE_URL")?.parse()?;
    /// let secrets = FingerprintSecrets::new("the same on each node");
    /// let engine = match Engine::connect(database, 20, IdempotencyConfig::default(), &secrets).await {
    ///     Ok(engine) => engine,
    ///     // The server cannot be reached: try again later.
    ///     Err(UnfitPool::Database(error)) => return Err(error.into()),
    ///     // Everything else needs an operator. The message says what to set.
    ///     Err(unfit) => panic!("{unfit}"),
    /// };
    /// # drop(engine);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`UnfitPool`], as for [`Engine::start`].
    pub async fn connect(
        options: PgConnectOptions,
        max_connections: u32,
        config: IdempotencyConfig,
        secrets: &FingerprintSecrets,
    ) -> Result<Self, UnfitPool> {
        let pool = database::pool_options()
            .max_connections(max_connections)
            .connect_lazy_with(database::session_options(options));
        Self::start(pool, config, secrets).await
    }

    /// Starts an engine on the caller's pool, whose database has the [engine's tables](crate::migrate()).
    ///
    /// Transactions run in tasks of the tokio runtime that starts it.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use payonce_engine::database::{pool_options, session_options};
    /// use payonce_engine::{Engine, FingerprintSecrets, IdempotencyConfig};
    ///
    /// // The service's own queries use the same pool.
    /// let database = session_options(std::env::var("DATABASE_URL")?.parse()?).application_name("orders");
    /// let pool = pool_options().max_connections(20).connect_with(database).await?;
    /// payonce_engine::migrate(&pool).await?;
    /// let secrets = FingerprintSecrets::new("the same on each node");
    /// let engine = Engine::start(pool.clone(), IdempotencyConfig::default(), &secrets).await?;
    /// # drop(engine);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`UnfitPool`] if the pool, its sessions or the database cannot keep the engine's guarantees, or could not be checked.
    pub async fn start(
        pool: PgPool,
        config: IdempotencyConfig,
        secrets: &FingerprintSecrets,
    ) -> Result<Self, UnfitPool> {
        database::check(&pool, config.durability).await?;
        let distribution = database::distribution(&mut *database::acquire(&pool).await?).await?;
        Ok(Self::on(pool, distribution, config, secrets))
    }

    /// Starts an engine on a pool that was checked before.
    pub(crate) fn on(
        pool: PgPool,
        distribution: Distribution,
        config: IdempotencyConfig,
        secrets: &FingerprintSecrets,
    ) -> Self {
        let shared = Shared {
            nodes: OnceLock::new(),
            pool,
            distribution,
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

    /// Runs `work` once for this key, in one transaction, and gives every request with the key its answer.
    ///
    /// `work` gets the open transaction; what it writes commits together with the key and the answer. On
    /// [`Outcome::Failed`] its writes are undone and the answer is stored all the same. On `Err` nothing is stored, and
    /// the key may be used again. Begin, work and commit run in a task of their own: dropping this future stops nothing.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
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
    ///
    /// # Errors
    ///
    /// [`IdempotencyError`]. Those of the first request with the key: [`Work`](IdempotencyError::Work) with the error of `work`,
    /// [`InvalidResponse`](IdempotencyError::InvalidResponse), [`Aborted`](IdempotencyError::Aborted). Those of a later one:
    /// [`FingerprintMismatch`](IdempotencyError::FingerprintMismatch), [`InProgress`](IdempotencyError::InProgress),
    /// [`Expired`](IdempotencyError::Expired), [`Unreadable`](IdempotencyError::Unreadable). Of either: the database's, and those of
    /// [`Engine::sign`].
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
        let signed = self.sign(key.clone(), request)?;
        self.execute_signed(signed, Wait::Configured, work).await
    }

    /// Like [`Engine::execute`], for a request that is already signed. It may have its own time to live
    /// ([`SignedRequest::with_ttl`]), and its own limit on the wait for another request with the key.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn order(engine: Engine, key: ScopedKey) -> Result<Option<Answer>, IdempotencyError> {
    /// use std::time::Duration;
    ///
    /// let signed = engine.sign(key, "tea")?.with_ttl(Duration::from_secs(7 * 24 * 60 * 60));
    /// let work = async |_: Transaction| StoredResponse::json(201, &"ordered").map(Outcome::Completed);
    /// match engine.execute_signed(signed, Wait::AtMost(Duration::from_millis(200)), work).await {
    ///     Ok(answer) => Ok(Some(answer)),
    ///     // Answer 409: the client should send the same request again.
    ///     Err(IdempotencyError::InProgress { .. }) => Ok(None),
    ///     Err(error) => Err(error),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`IdempotencyError`], as for [`Engine::execute`].
    pub async fn execute_signed<E, F, Fut>(
        &self,
        signed: SignedRequest,
        wait: Wait,
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
        let gate = match self.recall(&signed) {
            Some(gate) => gate,
            None => {
                let claimant = InOneTransaction(self.planned(plan));
                self.enter::<std::convert::Infallible>(signed, wait, claimant)
                    .await?
            }
        };
        match gate {
            Gate::Answered(answer) => Ok(answer),
            Gate::Claimed { work: never, .. } => match never {},
            Gate::TakenOver(_) => Err(IdempotencyError::InProgress {
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

    /// The first of two phases: takes the key, and commits it together with what the caller is about to do.
    ///
    /// `plan` gets the open transaction and returns a [`Plan`]. It must not wait for anything but the database. Make the call on
    /// [`Gate::Claimed`] and [`Gate::TakenOver`], and then settle.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn refund(engine: Engine, key: ScopedKey) -> Result<(), IdempotencyError> {
    /// let plan = async |mut tx: Transaction| {
    ///     let id: String = sqlx::query_scalar("insert into refunds (amount) values (500) returning refund_id::text")
    ///         .fetch_one(&mut *tx)
    ///         .await?;
    ///     Ok::<_, sqlx::Error>(Plan::Call { resource_id: id, work: 500 })
    /// };
    /// match engine.claim(&key, &500, Wait::Configured, plan).await? {
    ///     Gate::Claimed { permit, work: amount } => {
    ///         // Call the bank for this amount under the name `permit.resource_id()`, then settle.
    /// #       drop((permit, amount));
    ///     }
    ///     Gate::TakenOver(permit) => {
    ///         // The first owner died. Read the refund by `permit.resource_id()`, make the same call, then settle.
    /// #       drop(permit);
    ///     }
    ///     Gate::Answered(answer) => println!("send {} again", answer.response.status),
    ///     Gate::InProgress { retry_after } => println!("409, Retry-After: {}", retry_after.as_secs()),
    ///     Gate::Mismatch(mismatch) => println!("422, because of {:?}", mismatch.changed),
    ///     Gate::Expired { resource_id, .. } => println!("409, the key made {resource_id} long ago"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`IdempotencyError`], as for [`Engine::execute`]. What a later request with the key finds is a [`Gate`] and no error, except
    /// [`Unreadable`](IdempotencyError::Unreadable).
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

    /// Signs a request, which is the first step for each.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn order(engine: Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// let key = ScopedKey::new("acme", "create_order", IdempotencyKey::new("cart-17")?);
    /// let signed = engine.sign(key, &serde_json::json!({"sku": "tea", "quantity": 2}))?;
    /// assert_eq!(signed.key().operation, "create_order");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::Uncanonical`] or [`IdempotencyError::InvalidScope`].
    pub fn sign(
        &self,
        key: ScopedKey,
        request: &(impl Fingerprinted + ?Sized),
    ) -> Result<SignedRequest, IdempotencyError> {
        key.check()?;
        let fingerprints = self.0.signer.sign(&key, request)?;
        Ok(SignedRequest {
            key,
            fingerprints,
            ttl: None,
        })
    }

    /// Keeps a final answer for replays.
    pub(crate) fn keep(
        &self,
        key: &ScopedKey,
        fingerprint: &Arc<Fingerprint>,
        answer: &Answer,
        until: Instant,
    ) {
        self.0.replays.keep(key, fingerprint, answer, until);
    }

    /// Returns its settings.
    ///
    /// ```no_run
    /// # fn link(engine: payonce_engine::Engine) {
    /// let days = engine.config().ttl.as_secs() / (24 * 60 * 60);
    /// println!("Keys are remembered for {days} days.");
    /// # }
    /// ```
    pub fn config(&self) -> &IdempotencyConfig {
        &self.0.config
    }

    /// The ids of its secrets; the first signs.
    pub(crate) fn secret_ids(&self) -> Vec<String> {
        self.0.signer.secret_ids()
    }

    /// Returns the id of this engine, which is the value of `idempotency_keys.owner` for its claims.
    ///
    /// ```no_run
    /// # async fn count(engine: payonce_engine::Engine) -> sqlx::Result<()> {
    /// let mine: i64 = sqlx::query_scalar("select count(*) from idempotency_keys where owner = $1 and state = 'PROCESSING'")
    ///     .bind(engine.owner())
    ///     .fetch_one(engine.pool())
    ///     .await?;
    /// # let _ = mine;
    /// # Ok(())
    /// # }
    /// ```
    pub fn owner(&self) -> Uuid {
        self.0.owner
    }

    pub(crate) fn nodes(&self) -> &Nodes {
        let make = || Nodes::new(self.0.pool.clone());
        self.0.nodes.get_or_init(make)
    }

    /// Returns how the tables were stored when it started.
    pub fn distribution(&self) -> Distribution {
        self.0.distribution
    }

    /// Returns the pool of its database.
    ///
    /// ```no_run
    /// # async fn read(engine: payonce_engine::Engine) -> sqlx::Result<()> {
    /// // A read needs no key and no transaction of the engine.
    /// let orders: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(engine.pool()).await?;
    /// # let _ = orders;
    /// # Ok(())
    /// # }
    /// ```
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// Runs a future in a task of the engine's runtime, which only the end of the process stops. A panic in it becomes an error.
    ///
    /// ```no_run
    /// # use payonce_engine::*;
    /// # async fn handle<F>(engine: Engine, call_and_settle: F) -> Result<(), IdempotencyError>
    /// # where F: Future<Output = Result<Settled, IdempotencyError>> + Send + 'static {
    /// // A web framework drops a handler's future when its client hangs up. The call and the settle go on.
    /// let settled = engine.run(call_and_settle).await??;
    /// # drop(settled);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::Aborted`] if the future panicked, or the runtime is shutting down.
    pub async fn run<T, Fut>(&self, future: Fut) -> Result<T, IdempotencyError>
    where
        T: Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        // Boxed, because each wrapper below would move the whole future.
        let presence = Presence::new();
        let future = Box::pin(presence.of(future)).in_current_span();
        let task = self.0.tasks.spawn_on(future, &self.0.runtime);
        task.await
            .map_err(|_| IdempotencyError::Aborted("its task panicked, or the process is ending"))
    }

    /// Runs a future on the engine's runtime for as long as the process lives, or until it ends by itself.
    pub(crate) fn spawn_background(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.0.runtime.spawn(future);
    }

    /// Waits until all tasks have ended. Call it after the last request.
    ///
    /// ```no_run
    /// # async fn stop(engine: payonce_engine::Engine) {
    /// // The server has stopped; no request comes any more.
    /// engine.finish().await;
    /// engine.pool().close().await;
    /// # }
    /// ```
    pub async fn finish(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

/// A failed query in the caller's work is the database's failure, not the work's.
pub(crate) fn work_error(error: Box<dyn std::error::Error + Send + Sync>) -> IdempotencyError {
    match error.downcast::<sqlx::Error>() {
        Ok(error) => IdempotencyError::Database(*error),
        Err(error) => IdempotencyError::Work(error),
    }
}
