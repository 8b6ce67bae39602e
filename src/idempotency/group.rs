//! Group commit: a commit waits for the disk, so what arrives while one is waiting goes into the next, all together.
//!
//! There is no timer: a lone item goes at once, as a group of one. Groups are bounded, and so is the queue; a full queue
//! refuses rather than grow. In the queue merchants take turns, so that one's storm does not hold up the others. Items are
//! sorted in their group, so that two groups never wait for each other in a circle. When a group fails, its items go one by
//! one, so that a bad one fails no neighbour.

use std::cmp::Ordering;
use std::future::Future;
use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};
use tokio::sync::oneshot;

use super::config::LARGEST_GROUP;
use super::engine::Engine;
use super::error::{IdempotencyError, may_have_committed};
use super::fair_queue::FairQueue;
use crate::database;

/// The most items that wait. At ten thousand a second this is about a second's work: a client that waits longer is better
/// told so. One merchant alone gets half of it.
const MAX_WAITING: usize = 8192;

/// How a group is written.
pub trait GroupWriter: Send + Sync + 'static {
    /// One item.
    type Item: Send + Sync + 'static;
    /// What a written item brings.
    type Written: Send + 'static;

    /// The name of its lanes, in the metric `payonce_batch_size`.
    const LANE: &'static str;

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
}

type Result<W> = std::result::Result<
    (
        <W as GroupWriter>::Item,
        Option<<W as GroupWriter>::Written>,
    ),
    (<W as GroupWriter>::Item, Arc<sqlx::Error>),
>;

struct Waiting<W: GroupWriter> {
    item: W::Item,
    reply: oneshot::Sender<Result<W>>,
}

/// What became of an item.
pub enum Grouped<W: GroupWriter> {
    /// Its group was committed. `None`: this item was left out.
    Written(W::Item, Option<W::Written>),
    /// It was not, or it is not known. The item is given back.
    Failed(W::Item, Arc<sqlx::Error>),
}

/// A queue, and the lanes that work it off.
pub struct GroupCommit<W: GroupWriter> {
    queue: Arc<FairQueue<Waiting<W>>>,
}

impl<W: GroupWriter> Drop for GroupCommit<W> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<W: GroupWriter> GroupCommit<W> {
    /// Starts `lanes` lanes on the engine's runtime and database, at least one. They end when this is dropped.
    pub fn start(engine: &Engine, writer: W, lanes: usize) -> Self {
        let queue = Arc::new(FairQueue::new(MAX_WAITING));
        let writer = Arc::new(writer);
        let closing = Arc::new(CloseOnDrop(Arc::clone(&queue)));
        let has_room = engine.pool().options().get_max_connections() >= ROOM_FOR_BOTH;
        for _ in 0..lanes.max(1) {
            let lane = Lane {
                pool: engine.pool().clone(),
                writer: Arc::clone(&writer),
                queue: Arc::clone(&closing),
                connections: [None, None],
                // The settings' range is checked where they are read; a library user's 0 would wait for ever.
                group_size: usize::from(engine.config().group_size.clamp(1, LARGEST_GROUP)),
                planned_once: if has_room { PLANNED_ONCE } else { 0 },
            };
            engine.spawn_background(lane.run());
        }
        Self { queue }
    }

    /// Waits for the item's group. Dropping the future does not take the item back.
    pub async fn submit(&self, item: W::Item) -> std::result::Result<Grouped<W>, IdempotencyError> {
        let (reply, replied) = oneshot::channel();
        let line = self.queue.line(W::whose(&item));
        self.queue
            .push(line, Waiting { item, reply })
            .map_err(|_| IdempotencyError::Overloaded)?;
        match replied.await {
            Ok(Ok((item, written))) => Ok(Grouped::Written(item, written)),
            Ok(Err((item, error))) => Ok(Grouped::Failed(item, error)),
            Err(_) => Err(IdempotencyError::Aborted(
                "its lane panicked, or the process is ending",
            )),
        }
    }
}

/// When the last lane has ended, by a panic or with its runtime, nobody works the queue off: whoever waits is told, and
/// whoever comes.
struct CloseOnDrop<W: GroupWriter>(Arc<FairQueue<Waiting<W>>>);

impl<W: GroupWriter> Drop for CloseOnDrop<W> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Lane<W: GroupWriter> {
    pool: PgPool,
    writer: Arc<W>,
    queue: Arc<CloseOnDrop<W>>,
    /// Kept from group to group: borrowing one would cost a round trip each time. One for each way of planning.
    connections: [Option<PoolConnection<Postgres>>; 2],
    group_size: usize,
    planned_once: usize,
}

impl<W: GroupWriter> Lane<W> {
    async fn run(mut self) {
        loop {
            let group = self.queue.0.take(self.group_size).await;
            if group.is_empty() {
                return;
            }
            metrics::histogram!("payonce_batch_size", "lane" => W::LANE)
                .record(u32::try_from(group.len()).unwrap_or(u32::MAX));
            self.commit(group).await;
        }
    }

    async fn commit(&mut self, mut group: Vec<Waiting<W>>) {
        group.sort_unstable_by(|one, other| W::order(&one.item, &other.item));
        let (items, replies): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.item, waiting.reply))
            .unzip();
        match self.write(&items).await {
            Ok(written) => {
                for ((item, reply), written) in items.into_iter().zip(replies).zip(written) {
                    // Whoever waited may have gone; what was written stays written.
                    drop(reply.send(Ok((item, written))));
                }
            }
            // Whether the group was committed is not known: each of its owners finds out for itself.
            Err(error) if items.len() == 1 || may_have_committed(&error) => {
                let error = Arc::new(error);
                for (item, reply) in items.into_iter().zip(replies) {
                    drop(reply.send(Err((item, Arc::clone(&error)))));
                }
            }
            Err(error) => {
                tracing::warn!(%error, lane = W::LANE, items = items.len(), "a group failed; its items go one by one");
                for (item, reply) in items.into_iter().zip(replies) {
                    self.commit_alone(item, reply).await;
                }
            }
        }
    }

    async fn commit_alone(&mut self, item: W::Item, reply: oneshot::Sender<Result<W>>) {
        let result = match self.write(std::slice::from_ref(&item)).await {
            Ok(mut written) => Ok((item, written.pop().flatten())),
            Err(error) => Err((item, Arc::new(error))),
        };
        drop(reply.send(result));
    }

    async fn write(&mut self, items: &[W::Item]) -> sqlx::Result<Vec<Option<W::Written>>> {
        let planning = if items.len() <= self.planned_once {
            Planning::Once
        } else {
            Planning::EachTime
        };
        let mut connection = match self.connections[planning as usize].take() {
            Some(connection) => connection,
            None => connect(&self.pool, planning).await?,
        };
        failpoint!(&format!("{}-before-commit", W::LANE));
        let written = self.writer.write(&mut connection, items).await;
        match &written {
            Err(error) if may_have_committed(error) => {
                tracing::warn!(%error, lane = W::LANE, "a lane lost its connection");
            }
            _ => self.connections[planning as usize] = Some(connection),
        }
        written
    }
}

/// How a group's statement is planned.
#[derive(Clone, Copy, Debug)]
enum Planning {
    /// Once a connection, as nested loops over whole keys: what the plan is does not depend on how full the tables were, but
    /// what a group brings is compared with itself row by row.
    Once,
    /// Anew for each group: that takes longer than a small group's statement, and is little for a large one. A generic plan
    /// that was made while a table was empty would scan a merchant's rows for each group.
    EachTime,
}

/// Groups up to this many items are planned once. Measured by `make bench`: see docs/DESIGN.md.
const PLANNED_ONCE: usize = 32;

/// A pool with fewer connections has none to spare for a lane's second one.
const ROOM_FOR_BOTH: u32 = 10;

impl Planning {
    /// An embedding service's pool may ask for other plans than ours does.
    fn settings(self) -> &'static str {
        match self {
            Self::Once => {
                "set jit = off; \
                 set plan_cache_mode = force_generic_plan; \
                 set enable_seqscan = off; \
                 set enable_bitmapscan = off; \
                 set enable_hashjoin = off; \
                 set enable_mergejoin = off"
            }
            Self::EachTime => "set jit = off; set plan_cache_mode = force_custom_plan",
        }
    }
}

/// A lane's own connection.
async fn connect(pool: &PgPool, planning: Planning) -> sqlx::Result<PoolConnection<Postgres>> {
    let mut connection = database::acquire(pool).await?;
    // Its settings are its own: it never goes back to the pool.
    connection.close_on_drop();
    sqlx::raw_sql(planning.settings())
        .execute(&mut *connection)
        .await?;
    Ok(connection)
}
