//! Claims and settles by a statement of one's own, many in one commit.
//!
//! [`Engine::claim`](crate::Engine::claim) and [`Engine::settle`](crate::Engine::settle) take a transaction each. A service whose
//! claim is one statement can write many of them in one commit: it implements [`Claimant`] and [`Settler`] over a
//! [`GroupCommit`], and gives requests to [`Engine::enter`](crate::Engine::enter) and
//! [`Engine::settle_by`](crate::Engine::settle_by). The columns of the engine's tables come from [`NewKey`], [`Outcome::columns`](crate::Outcome::columns) and
//! [`FoundColumns`].
//!
//! Group commit: a commit waits for the disk, so what arrives while one is waiting goes into the next, all together.
//!
//! There is no timer: a lone item goes at once, as a group of one. Groups are bounded, and so is the queue; a full queue
//! refuses rather than grow. In the queue merchants take turns, so that one's storm does not hold up the others. Items are
//! sorted in their group, so that two groups never wait for each other in a circle. When a group fails by what one of its
//! items brought, they go one by one, so that a bad one fails no neighbour. Where there is no connection, all that wait are
//! told at once.

mod fair_queue;
mod lane;

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
use crate::caller::Caller;
pub use crate::claimant::{Attempt, Claimant, Remembered};
pub use crate::config::LARGEST_GROUP;
use crate::database::{Node, Nodes, Spread};
use crate::engine::Engine;
pub use crate::engine::SignedRequest;
use crate::error::IdempotencyError;
pub use crate::fingerprint::FINGERPRINT_VERSION;
pub use crate::settle::{Settler, in_transaction};
pub use crate::store::{FoundColumns, FoundKey, Inserted, KeyColumns, NewKey, ResponseColumns};

/// Maximum number of items that wait. At ten thousand a second this is about a second's work: a client that waits longer is better
/// told so. One merchant alone gets half of it.
const MAX_WAITING: usize = 8192;

/// A group takes milliseconds. One that takes longer waits for a database that does not answer.
const STALLED: Duration = Duration::from_secs(2);

/// How a group is written.
pub trait GroupWriter: Send + Sync + 'static {
    /// One item.
    type Item: Send + Sync + 'static;
    /// What a written item brings.
    type Written: Send + 'static;

    /// The name of its lanes, in the metric `payonce_batch_size`.
    const LANE: &'static str;

    /// True if an item is dropped when its submitter has gone before its group is sent: nothing has happened, and
    /// no caller would learn what it did.
    const NEEDS_CALLER: bool = false;

    /// Whose it is: in the queue the items of one take turns with those of another.
    fn whose(item: &Self::Item) -> &str;

    /// The order in which rows are locked.
    fn order(one: &Self::Item, other: &Self::Item) -> Ordering;

    /// Writes a sorted group in one statement that commits by itself. The result is in the items' order; `None` for an item
    /// that was left out.
    fn write(
        &self,
        connection: &mut PgConnection,
        items: &[Self::Item],
    ) -> impl Future<Output = sqlx::Result<Vec<Option<Self::Written>>>> + Send;

    /// Writes a sorted group of one owner, [`whose`](Self::whose), in one transaction, where the tables are
    /// [distributed by owner](Spread::ByOwner). Statements that name the owner as a value go to its node alone; others ask every
    /// node. The default is [`write`](Self::write).
    fn write_of(
        &self,
        connection: &mut PgConnection,
        whose: &str,
        items: &[Self::Item],
    ) -> impl Future<Output = sqlx::Result<Vec<Option<Self::Written>>>> + Send {
        let _ = whose;
        self.write(connection, items)
    }
}

struct Waiting<W: GroupWriter> {
    item: W::Item,
    reply: oneshot::Sender<Grouped<W>>,
    caller: Option<Caller>,
}

impl<W: GroupWriter> Waiting<W> {
    fn is_abandoned(&self) -> bool {
        self.reply.is_closed() || self.caller.as_ref().is_some_and(Caller::is_gone)
    }
}

/// What became of an item.
pub enum Grouped<W: GroupWriter> {
    /// Its group was committed. `None` for an item that was left out.
    Written(W::Item, Option<W::Written>),
    /// It was not, or it is not known. The item is given back.
    Failed(W::Item, Arc<sqlx::Error>),
    /// There was no connection: it is certain that nothing was sent. The item is given back.
    NotSent(W::Item, Arc<sqlx::Error>),
}

/// A queue, and the lanes that work it off.
///
/// Where the tables are [distributed by owner](Spread::ByOwner), each node has a queue and lanes of its own, and a group is of one
/// owner: it is one node's alone, and a node that does not answer delays nobody else.
pub struct GroupCommit<W: GroupWriter>(Queues<W>);

enum Queues<W: GroupWriter> {
    One(Queue<W>),
    OfNodes(OfNodes<W>),
}

/// What all queues of a kind have in common.
struct Kind<W: GroupWriter> {
    engine: Engine,
    writer: Arc<W>,
    /// How many lanes each queue has.
    lanes: u32,
    /// How many lanes all queues have.
    all_lanes: Arc<AtomicU32>,
}

impl<W: GroupWriter> GroupCommit<W> {
    /// Starts `lanes` lanes on the engine's runtime and database, at least one. They end when this is dropped. In a cluster, each
    /// node has so many, from its first item on.
    pub fn start(engine: &Engine, writer: W, lanes: u32) -> Self {
        let kind = Kind {
            engine: engine.clone(),
            writer: Arc::new(writer),
            lanes: lanes.max(1),
            all_lanes: Arc::default(),
        };
        Self(match engine.spread() {
            Spread::OneServer => Queues::One(Queue::start(&kind)),
            Spread::ByOwner => Queues::OfNodes(OfNodes::new(kind)),
        })
    }

    /// Waits for the item's group. Dropping the future takes the item back only where it was not sent yet and
    /// [`GroupWriter::NEEDS_CALLER`] is set.
    pub async fn submit(&self, item: W::Item) -> Result<Grouped<W>, IdempotencyError> {
        match &self.0 {
            Queues::One(queue) => queue.submit(item).await,
            Queues::OfNodes(nodes) => {
                // Boxed: only clusters need it.
                Box::pin(async { nodes.queue_of(W::whose(&item)).await.submit(item).await }).await
            }
        }
    }

    /// True while a lane has been busy with one group for longer than 2 s: it waits for a database that does not answer. In a
    /// cluster, while that is so on every node that has had work.
    pub fn is_stalled(&self) -> bool {
        match &self.0 {
            Queues::One(queue) => queue.is_stalled(),
            Queues::OfNodes(nodes) => nodes.are_stalled(),
        }
    }
}

struct Queue<W: GroupWriter> {
    waiting: Arc<FairQueue<Waiting<W>>>,
    progress: Vec<Progress>,
}

impl<W: GroupWriter> Drop for Queue<W> {
    fn drop(&mut self) {
        self.waiting.close();
    }
}

impl<W: GroupWriter> Queue<W> {
    fn start(kind: &Kind<W>) -> Self {
        let waiting = Arc::new(FairQueue::new(MAX_WAITING));
        let closing = Arc::new(CloseOnDrop(Arc::clone(&waiting)));
        let progress: Vec<Progress> = (0..kind.lanes).map(|_| Progress::default()).collect();
        kind.all_lanes
            .fetch_add(kind.lanes, atomic::Ordering::Relaxed);
        for progress in &progress {
            let lane = Lane::new(kind, Arc::clone(&closing), progress.clone());
            kind.engine.spawn_background(lane.run());
        }
        Self { waiting, progress }
    }

    async fn submit(&self, item: W::Item) -> Result<Grouped<W>, IdempotencyError> {
        let (reply, replied) = oneshot::channel();
        let line = self.waiting.line(W::whose(&item));
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
        self.progress.iter().any(Progress::is_stalled)
    }
}

/// The queues of a cluster's nodes.
struct OfNodes<W: GroupWriter> {
    kind: Kind<W>,
    nodes: Nodes,
    queues: Mutex<HashMap<Node, Arc<Queue<W>>>>,
}

impl<W: GroupWriter> OfNodes<W> {
    fn new(kind: Kind<W>) -> Self {
        Self {
            nodes: Nodes::new(kind.engine.pool().clone()),
            kind,
            queues: Mutex::default(),
        }
    }

    async fn queue_of(&self, owner: &str) -> Arc<Queue<W>> {
        let node = self.nodes.of(owner).await;
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

/// Since when a lane is busy with its group.
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

/// When the last lane has ended, by a panic or with its runtime, nothing empties the queue: items that wait are refused, and
/// so are new ones.
struct CloseOnDrop<W: GroupWriter>(Arc<FairQueue<Waiting<W>>>);

impl<W: GroupWriter> Drop for CloseOnDrop<W> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
