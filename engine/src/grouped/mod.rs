//! Claims and settles that write many keys in one statement and one commit.
//!
//! [`Engine::claim`](crate::Engine::claim) and [`Engine::settle`](crate::Engine::settle) take a transaction each. A service whose
//! claim is one statement can write many claims in one commit: it implements [`Claimant`] and [`Settler`] over a [`GroupCommit`],
//! and gives requests to [`Engine::enter`](crate::Engine::enter) and [`Engine::settle_by`](crate::Engine::settle_by). The columns of
//! the engine's tables come from [`NewKey`], [`Outcome::columns`](crate::Outcome::columns) and [`FoundColumns`].
//!
//! A commit waits for the disk. Whatever arrives while one group is being committed goes into the next group. While commits are slow,
//! by the lane's own measurement, a further group goes beside those under way once as many items wait as they have.
//!
//! * There is no timer: a lone item goes at once, as a group of one. Items that tasks bring at the same moment go together.
//! * Groups are bounded, and so is the queue. A full queue refuses items rather than grow. In the queue merchants take turns, so
//!   one merchant's load does not hold up the others.
//! * Items are sorted within their group, so two groups never wait for each other in a circle.
//! * If a group fails because of what one of its items contains, its items are written one by one, so a bad one fails no other.
//! * If there is no connection, all waiting items are told at once.
//!
//! # Claims in groups
//!
//! The claim of a parcel: a key, its row in `unsettled_keys`, and the parcel, in one statement for all that are waiting.
//!
//! ```
//! use std::cmp::Ordering;
//!
//! use payonce_engine::grouped::{
//!     Attempt, Claimant, FINGERPRINT_VERSION, GroupCommit, GroupWriter, Grouped, Inserted, NewKey, Remembered,
//! };
//! use payonce_engine::{Engine, Gate, IdempotencyError, ScopedKey, SignedRequest, Wait, may_have_committed};
//! use sqlx::{PgConnection, Row};
//!
//! /// An expired key is replaced. One that is in use is left out of the result.
//! const CLAIM: &str = "
//!     with claimed as (
//!         insert into idempotency_keys as k (
//!             merchant_id, operation, key, fingerprint, fingerprint_fields, resource_id,
//!             fingerprint_version, state, attempt, owner, lease_expires_at, created_at, expires_at
//!         )
//!         select i.*, $7, 'PROCESSING', 1, $8, now() + $9, now(), now() + $10
//!         from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[]) as i
//!         on conflict (merchant_id, operation, key) do update set
//!             fingerprint = excluded.fingerprint, fingerprint_fields = excluded.fingerprint_fields,
//!             fingerprint_version = excluded.fingerprint_version, resource_id = excluded.resource_id,
//!             state = excluded.state, attempt = excluded.attempt, owner = excluded.owner,
//!             lease_expires_at = excluded.lease_expires_at, response_status = null, response_headers = null,
//!             response_body = null, completed_at = null,
//!             created_at = excluded.created_at, expires_at = excluded.expires_at
//!         where k.state <> 'PROCESSING' and k.expires_at < excluded.created_at
//!         returning merchant_id, operation, key, resource_id, created_at, expires_at
//!     ),
//!     unsettled as (
//!         insert into unsettled_keys (merchant_id, operation, key, claimed_at)
//!         select merchant_id, operation, key, created_at from claimed
//!     ),
//!     made as (
//!         insert into parcels (merchant_id, parcel_id) select merchant_id, resource_id from claimed
//!     )
//!     select resource_id, created_at, expires_at from claimed";
//!
//! /// A parcel to be sent, and the key that it is sent under.
//! struct NewParcel {
//!     key: NewKey,
//!     id: String,
//! }
//!
//! struct ClaimParcels;
//!
//! impl GroupWriter for ClaimParcels {
//!     type Item = NewParcel;
//!     type Written = Inserted;
//!
//!     const LANE: &'static str = "claim_parcels";
//!     // Nobody waits for a parcel whose client has gone.
//!     const NEEDS_CALLER: bool = true;
//!
//!     fn merchant(parcel: &NewParcel) -> &str {
//!         &parcel.key.columns().scope.merchant_id
//!     }
//!
//!     fn order(one: &NewParcel, other: &NewParcel) -> Ordering {
//!         one.key.columns().scope.cmp(other.key.columns().scope)
//!     }
//!
//!     async fn write(
//!         &self,
//!         connection: &mut PgConnection,
//!         parcels: &[NewParcel],
//!     ) -> sqlx::Result<Vec<Option<Inserted>>> {
//!         let Some(first) = parcels.first() else { return Ok(Vec::new()) };
//!         let keys: Vec<_> = parcels.iter().map(|parcel| parcel.key.columns()).collect();
//!         let rows = sqlx::query(CLAIM)
//!             .bind(keys.iter().map(|key| &key.scope.merchant_id).collect::<Vec<_>>())
//!             .bind(keys.iter().map(|key| &key.scope.operation).collect::<Vec<_>>())
//!             .bind(keys.iter().map(|key| key.scope.key.as_str()).collect::<Vec<_>>())
//!             .bind(keys.iter().map(|key| key.fingerprint).collect::<Vec<_>>())
//!             .bind(keys.iter().map(|key| key.fingerprint_fields).collect::<Vec<_>>())
//!             .bind(parcels.iter().map(|parcel| &parcel.id).collect::<Vec<_>>())
//!             .bind(FINGERPRINT_VERSION)
//!             // One process has one owner and one configuration.
//!             .bind(first.key.owner())
//!             .bind(first.key.lock_timeout())
//!             .bind(first.key.ttl())
//!             .fetch_all(connection)
//!             .await?;
//!         let inserted = |parcel: &NewParcel| {
//!             let mut rows = rows.iter();
//!             let row = rows.find(|row| row.try_get("resource_id").is_ok_and(|id: &str| id == parcel.id))?;
//!             Some(Inserted { created_at: row.try_get("created_at").ok()?, expires_at: row.try_get("expires_at").ok()? })
//!         };
//!         Ok(parcels.iter().map(inserted).collect())
//!     }
//! }
//!
//! /// The claim of one request.
//! struct ParcelClaim<'a> {
//!     engine: &'a Engine,
//!     claims: &'a GroupCommit<ClaimParcels>,
//!     parcel_id: String,
//! }
//!
//! impl Claimant<()> for ParcelClaim<'_> {
//!     async fn try_claim(&mut self, key: NewKey) -> Result<Attempt<()>, IdempotencyError> {
//!         let parcel = NewParcel { key, id: self.parcel_id.clone() };
//!         let inserted = match self.claims.submit(parcel).await? {
//!             Grouped::Written(_, inserted) => inserted,
//!             Grouped::Failed(parcel, error) if may_have_committed(&error) => {
//!                 let found = self.engine.claimed_after_all(&parcel.key, &parcel.id).await?;
//!                 let unknown = || IdempotencyError::OutcomeUnknown(Box::new(IdempotencyError::Shared(error)));
//!                 Some(found.ok_or_else(unknown)?)
//!             }
//!             Grouped::Failed(_, error) | Grouped::NotSent(_, error) => return Err(IdempotencyError::Shared(error)),
//!         };
//!         Ok(match inserted {
//!             Some(inserted) => Attempt::Claimed { inserted, resource_id: self.parcel_id.clone(), work: () },
//!             None => Attempt::InUse,
//!         })
//!     }
//!
//!     async fn remembered(&mut self, _: &ScopedKey) -> Result<Option<Remembered>, IdempotencyError> {
//!         // The parcels do not keep their keys, so an expired key is a new one.
//!         Ok(None)
//!     }
//!
//!     async fn may_take_over(&mut self, _: &ScopedKey, _: &str) -> Result<(), IdempotencyError> {
//!         Ok(())
//!     }
//! }
//!
//! async fn claim(
//!     engine: &Engine,
//!     // One for the whole process: `GroupCommit::start(engine, ClaimParcels, 4)`.
//!     claims: &GroupCommit<ClaimParcels>,
//!     signed: SignedRequest,
//!     parcel_id: String,
//! ) -> Result<Gate<()>, IdempotencyError> {
//!     match engine.recall(&signed) {
//!         Some(gate) => Ok(gate),
//!         None => engine.enter(signed, Wait::Configured, ParcelClaim { engine, claims, parcel_id }).await,
//!     }
//! }
//! ```

mod fair_queue;
mod lane;
mod pace;
mod session;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{self, AtomicU32};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::fair_queue::FairQueue;
use self::lane::Lane;
use self::pace::Pace;
use crate::caller::Caller;
pub use crate::claimant::{Attempt, Claimant, Remembered};
pub use crate::config::LARGEST_GROUP;
use crate::database::{Distribution, Node, shortage};
use crate::engine::Engine;
pub use crate::engine::SignedRequest;
use crate::error::IdempotencyError;
pub use crate::fingerprint::FINGERPRINT_VERSION;
pub use crate::settle::{Settler, in_transaction};
pub use crate::store::{FoundColumns, FoundKey, Inserted, KeyColumns, NewKey, ResponseColumns};

/// Maximum number of items that wait. At ten thousand a second this is about a second's work: a client that waits longer is better
/// told so. One merchant alone gets half of it.
const MAX_WAITING: usize = 8192;

/// Claims and settles each have their lanes.
const KINDS_OF_LANES: u32 = 2;

/// A lane has a further group for as many connections of the pool: two kinds of lanes keep two fifths of them, and other work needs
/// the rest.
const POOL_PER_FURTHER: u32 = 5;

/// A group takes milliseconds. One that takes longer waits for a database that does not answer.
const STALLED: Duration = Duration::from_secs(2);

/// How a group is written. The [module's example](self#claims-in-groups) implements it.
pub trait GroupWriter: Send + Sync + 'static {
    /// One item.
    type Item: Send + Sync + 'static;
    /// What is returned for an item that was written.
    type Written: Send + 'static;

    /// The name of its lanes, in the metric `payonce_batch_size`.
    const LANE: &'static str;

    /// True if an item is dropped when its caller has gone before its group is sent. Nothing has happened then, and nobody would
    /// learn of it.
    const NEEDS_CALLER: bool = false;

    /// Returns the merchant whose item it is. In the queue merchants take turns.
    fn merchant(item: &Self::Item) -> &str;

    /// The order in which rows are locked.
    fn order(one: &Self::Item, other: &Self::Item) -> Ordering;

    /// Writes a sorted group in one statement, without a transaction around it. The result has the items' order, and `None` for an
    /// item that was left out.
    fn write(
        &self,
        connection: &mut PgConnection,
        items: &[Self::Item],
    ) -> impl Future<Output = sqlx::Result<Vec<Option<Self::Written>>>> + Send;

    /// Writes a sorted group of one merchant, [`merchant`](Self::merchant), in one transaction, where the tables are
    /// [distributed by merchant](Distribution::ByMerchant). Statements that name the merchant as a value go to its node alone; others
    /// ask every node. The default is [`write`](Self::write).
    fn write_of(
        &self,
        connection: &mut PgConnection,
        merchant: &str,
        items: &[Self::Item],
    ) -> impl Future<Output = sqlx::Result<Vec<Option<Self::Written>>>> + Send {
        let _ = merchant;
        self.write(connection, items)
    }
}

struct Waiting<W: GroupWriter> {
    item: W::Item,
    reply: oneshot::Sender<Grouped<W>>,
    caller: Option<Caller>,
}

impl<W: GroupWriter> Waiting<W> {
    fn has_lost_its_caller(&self) -> bool {
        self.reply.is_closed() || self.caller.as_ref().is_some_and(Caller::is_gone)
    }
}

/// The result for one item, as in the [module's example](self#claims-in-groups).
pub enum Grouped<W: GroupWriter> {
    /// Its group was committed. `None` for an item that was left out.
    Written(W::Item, Option<W::Written>),
    /// It was not committed, or that is not known: see [`may_have_committed`](crate::may_have_committed). The item is given back.
    Failed(W::Item, Arc<sqlx::Error>),
    /// There was no connection, so nothing was sent. The item is given back.
    NotSent(W::Item, Arc<sqlx::Error>),
}

/// A queue, and the lane that writes what is in it, as in the [module's example](self#claims-in-groups).
///
/// Where the tables are [distributed by merchant](Distribution::ByMerchant), each node has a queue and a lane of its own, and a
/// group is of one merchant: it is one node's alone, and a node that does not answer delays nobody else.
pub struct GroupCommit<W: GroupWriter>(Queues<W>);

enum Queues<W: GroupWriter> {
    One(Queue<W>),
    OfNodes(OfNodes<W>),
}

/// What all queues of a kind have in common, and their lanes.
struct Kind<W: GroupWriter> {
    engine: Engine,
    writer: Arc<W>,
    /// Maximum number of groups of a lane that are under way at the same time.
    side_by_side: usize,
    pace: fn() -> Pace,
    /// How many lanes there are, one a queue.
    lanes: AtomicU32,
    /// What a shortage of connections is noted under.
    subject: String,
}

impl<W: GroupWriter> Kind<W> {
    fn new(engine: &Engine, writer: W, side_by_side: u32, pace: fn() -> Pace) -> Self {
        let side_by_side = match engine.distribution() {
            Distribution::OneServer => {
                side_by_side.min(engine.pool().options().get_max_connections() / POOL_PER_FURTHER)
            }
            Distribution::ByMerchant => 1,
        };
        Self {
            engine: engine.clone(),
            writer: Arc::new(writer),
            side_by_side: usize::try_from(side_by_side.max(1)).unwrap_or(usize::MAX),
            pace,
            lanes: AtomicU32::new(0),
            subject: shortage::subject(engine.pool()),
        }
    }

    /// A message is committed by the server that the lane is connected to. In a cluster that says nothing about the nodes.
    fn measures_commits(&self) -> bool {
        self.engine.distribution() == Distribution::OneServer
    }

    /// With few connections no lane keeps one: the lanes would take them all, and other work needs one, too.
    fn may_keep_connections(&self) -> bool {
        let lanes = self.lanes.load(atomic::Ordering::Relaxed);
        let kept = lanes.saturating_mul(KINDS_OF_LANES);
        self.engine.pool().options().get_max_connections() > kept && !shortage::is_on(&self.subject)
    }
}

impl<W: GroupWriter> GroupCommit<W> {
    /// Starts the lane of the queue on the engine's runtime and database. It ends when this is dropped, after the groups that are
    /// under way. In a cluster, each node gets a lane when its first item arrives.
    ///
    /// A lane writes one group after the other, on a connection that it keeps. While commits are slow, up to `side_by_side` groups
    /// go at the same time, each on a connection of its own, but no more than a fifth of the pool's connections. In a cluster it is
    /// always one.
    ///
    /// ```no_run
    /// # use payonce_engine::{Engine, grouped::{GroupCommit, GroupWriter}};
    /// # fn start<W: GroupWriter>(engine: Engine, writer: W) -> GroupCommit<W> {
    /// // As payonce does. With 1 there is never a second group under way.
    /// GroupCommit::start(&engine, writer, 4)
    /// # }
    /// ```
    pub fn start(engine: &Engine, writer: W, side_by_side: u32) -> Self {
        Self::start_at(engine, writer, side_by_side, Pace::default)
    }

    fn start_at(engine: &Engine, writer: W, side_by_side: u32, pace: fn() -> Pace) -> Self {
        let kind = Kind::new(engine, writer, side_by_side, pace);
        Self(match engine.distribution() {
            Distribution::OneServer => Queues::One(Queue::start(&Arc::new(kind))),
            Distribution::ByMerchant => Queues::OfNodes(OfNodes::new(kind)),
        })
    }

    /// Submits an item and waits for its group. Dropping the future takes the item back only if it was not sent yet and
    /// [`GroupWriter::NEEDS_CALLER`] is set.
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::Overloaded`] if the queue is full, and [`IdempotencyError::Aborted`] if its lane panicked or the process
    /// is ending.
    pub async fn submit(&self, item: W::Item) -> Result<Grouped<W>, IdempotencyError> {
        match &self.0 {
            Queues::One(queue) => queue.submit(item).await,
            Queues::OfNodes(nodes) => {
                // Boxed: only clusters need it.
                Box::pin(async { nodes.queue_of(W::merchant(&item)).await.submit(item).await })
                    .await
            }
        }
    }

    /// True while a lane has had groups under way for longer than 2 s and wrote none of them: it waits for a database that does not
    /// answer. In a cluster, while that is so on every node that has had work.
    ///
    /// ```no_run
    /// # use payonce_engine::grouped::{GroupCommit, GroupWriter};
    /// # fn health<W: GroupWriter>(claims: &GroupCommit<W>) -> u16 {
    /// // A readiness check without a query: the load balancer takes this node out.
    /// if claims.is_stalled() { 503 } else { 200 }
    /// # }
    /// ```
    pub fn is_stalled(&self) -> bool {
        match &self.0 {
            Queues::One(queue) => queue.is_stalled(),
            Queues::OfNodes(nodes) => nodes.are_stalled(),
        }
    }
}

struct Queue<W: GroupWriter> {
    waiting: Arc<FairQueue<Waiting<W>>>,
    progress: Progress,
}

impl<W: GroupWriter> Drop for Queue<W> {
    fn drop(&mut self) {
        self.waiting.close();
    }
}

impl<W: GroupWriter> Queue<W> {
    fn start(kind: &Arc<Kind<W>>) -> Self {
        let waiting = Arc::new(FairQueue::new(MAX_WAITING));
        let progress = Progress::default();
        kind.lanes.fetch_add(1, atomic::Ordering::Relaxed);
        let lane = Lane::new(
            Arc::clone(kind),
            CloseOnDrop(Arc::clone(&waiting)),
            progress.clone(),
        );
        kind.engine.spawn_background(lane.run());
        Self { waiting, progress }
    }

    async fn submit(&self, item: W::Item) -> Result<Grouped<W>, IdempotencyError> {
        let (reply, replied) = oneshot::channel();
        let line = self.waiting.line(W::merchant(&item));
        let caller = Caller::current();
        let waiting = Waiting {
            item,
            reply,
            caller,
        };
        self.waiting
            .push(line, waiting)
            .map_err(|_| IdempotencyError::Overloaded)?;
        replied.await.map_err(|_| {
            IdempotencyError::Aborted(
                "its caller is gone, its lane panicked, or the process is ending",
            )
        })
    }

    fn is_stalled(&self) -> bool {
        self.progress.is_stalled()
    }
}

/// The queues of a cluster's nodes.
struct OfNodes<W: GroupWriter> {
    kind: Arc<Kind<W>>,
    queues: Mutex<HashMap<Node, Arc<Queue<W>>>>,
}

impl<W: GroupWriter> OfNodes<W> {
    fn new(kind: Kind<W>) -> Self {
        Self {
            kind: Arc::new(kind),
            queues: Mutex::default(),
        }
    }

    async fn queue_of(&self, merchant: &str) -> Arc<Queue<W>> {
        let node = self.kind.engine.nodes().of(merchant).await;
        let mut queues = self.lock();
        let queue = queues
            .entry(node)
            .or_insert_with(|| Arc::new(Queue::start(&self.kind)));
        Arc::clone(queue)
    }

    fn are_stalled(&self) -> bool {
        let queues = self.lock();
        !queues.is_empty() && queues.values().all(|queue| queue.is_stalled())
    }

    /// A panic elsewhere leaves the queues as they were.
    fn lock(&self) -> MutexGuard<'_, HashMap<Node, Arc<Queue<W>>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since when a lane has groups under way and none of them was written.
#[derive(Clone, Default)]
struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    fn set(&self, busy_since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = busy_since;
    }

    fn is_stalled(&self) -> bool {
        let busy_since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        busy_since.is_some_and(|since| since.elapsed() > STALLED)
    }
}

/// When the lane has ended, by a panic or with its runtime, nothing empties the queue: items that wait are refused, and so are new
/// ones.
struct CloseOnDrop<W: GroupWriter>(Arc<FairQueue<Waiting<W>>>);

impl<W: GroupWriter> Drop for CloseOnDrop<W> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
