//! A session of a lane: it writes one group after the other, on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{GroupWriter, Grouped, Kind, Waiting};
use crate::database::{self, BorrowedConnection, Bounded, Distribution};
use crate::engine::SLOW_COMMIT;
use crate::store;

/// How long the items of a group that failed are tried one by one. Each may wait for a row that another transaction holds, and others
/// wait for them all.
const ALONE_PATIENCE: Duration = Duration::from_secs(5);

/// A connection that was idle for this long is asked whether it is alive before a group is sent on it.
const IDLE: Duration = Duration::from_millis(100);

/// How long an idle connection may take to answer.
const PATIENCE_WHEN_IDLE: Duration = Duration::from_secs(1);

type Reply<W> = oneshot::Sender<Grouped<W>>;

/// Why a group was not written.
enum Unwritten {
    /// There was no connection.
    NotSent(sqlx::Error),
    /// It failed, or its outcome is not known.
    Failed(sqlx::Error),
}

/// The items of a group that were not sent, because there was no connection, and why.
pub(super) struct NotSent<W: GroupWriter> {
    items: Vec<(W::Item, Reply<W>)>,
    error: sqlx::Error,
}

pub(super) struct Session<W: GroupWriter> {
    kind: Arc<Kind<W>>,
    /// Kept from group to group: borrowing one would cost a round trip each time.
    connection: Option<Connection>,
    planning: Planning,
}

/// A lane's own connection. Its settings are its own: it never goes back to the pool.
struct Connection {
    borrowed: BorrowedConnection,
    opened: Instant,
    /// When it last answered.
    used: Instant,
}

impl<W: GroupWriter> Session<W> {
    pub(super) fn new(kind: &Arc<Kind<W>>, planning: Planning) -> Self {
        Self {
            kind: Arc::clone(kind),
            connection: None,
            planning,
        }
    }

    /// How the last group was planned.
    pub(super) fn planning(&self) -> Planning {
        self.planning
    }

    /// Writes a group and tells each submitter.
    pub(super) async fn commit(&mut self, mut group: Vec<Waiting<W>>) -> Result<(), NotSent<W>> {
        if W::NEEDS_CALLER {
            group.retain(|waiting| !waiting.has_lost_its_caller());
        }
        if group.is_empty() {
            return Ok(());
        }
        metrics::histogram!("payonce_batch_size", "lane" => W::LANE)
            .record(u32::try_from(group.len()).unwrap_or(u32::MAX));
        group.sort_unstable_by(|one, other| W::order(&one.item, &other.item));
        let (items, replies): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.item, waiting.reply))
            .unzip();
        match self.write(&items).await {
            Ok(written) => {
                for ((item, reply), written) in items.into_iter().zip(replies).zip(written) {
                    // The submitter may have gone. What was written stays written.
                    drop(reply.send(Grouped::Written(item, written)));
                }
            }
            Err(Unwritten::NotSent(error)) => {
                let items = items.into_iter().zip(replies).collect();
                return Err(NotSent { items, error });
            }
            Err(Unwritten::Failed(error))
                if items.len() > 1 && database::may_be_one_items_fault(&error) =>
            {
                return self
                    .commit_one_by_one(items.into_iter().zip(replies), error)
                    .await;
            }
            // Whether the group was committed may not be known: each of its owners finds out for itself.
            Err(Unwritten::Failed(error)) => fail_all(items.into_iter().zip(replies), error),
        }
        Ok(())
    }

    /// One of them may have caused the failure. The others are written without it.
    async fn commit_one_by_one(
        &mut self,
        mut items: impl Iterator<Item = (W::Item, Reply<W>)>,
        error: sqlx::Error,
    ) -> Result<(), NotSent<W>> {
        tracing::warn!(%error, lane = W::LANE, "a group failed; its items go one by one");
        let deadline = Instant::now() + ALONE_PATIENCE;
        while let Some((item, reply)) = items.next() {
            let answer = match self.write(std::slice::from_ref(&item)).await {
                Ok(mut written) => Grouped::Written(item, written.pop().flatten()),
                Err(Unwritten::Failed(error)) => Grouped::Failed(item, Arc::new(error)),
                Err(Unwritten::NotSent(error)) => {
                    let items = std::iter::once((item, reply)).chain(items).collect();
                    return Err(NotSent { items, error });
                }
            };
            drop(reply.send(answer));
            if Instant::now() > deadline {
                // The rest was not written: the group was not.
                fail_all(items, error);
                break;
            }
        }
        Ok(())
    }

    /// Makes sure of a connection, so that a group that is given to it can be sent.
    pub(super) async fn get_ready(&mut self) -> sqlx::Result<()> {
        self.connection = Some(self.connection().await?);
        Ok(())
    }

    /// True if a group can be sent without a question to the server before.
    pub(super) fn is_ready(&self) -> bool {
        let mut connection = self.connection.iter();
        connection.any(|kept| !kept.is_old() && !kept.is_idle())
    }

    /// Returns how long a commit of a message takes now, which waits for the disk as each commit does. `None` if there is no
    /// connection at hand, or the server refuses it.
    pub(super) async fn measure_commit(&mut self) -> Option<Duration> {
        let mut connection = self.connection.take()?;
        let begun = Instant::now();
        let committed = store::commit_message(&mut connection.borrowed)
            .bounded()
            .await;
        let took = begun.elapsed();
        match &committed {
            Err(error) if error.as_database_error().is_none() => connection.borrowed.discard(),
            _ => {
                connection.used = Instant::now();
                self.connection = Some(connection);
            }
        }
        let log = |error| tracing::debug!(%error, lane = W::LANE, "a commit of a message failed");
        committed.map_err(log).ok().map(|()| took)
    }

    async fn write(&mut self, items: &[W::Item]) -> Result<Vec<Option<W::Written>>, Unwritten> {
        let written = self.write_once(items).await;
        match &written {
            Err(Unwritten::Failed(error))
                if self.planning == Planning::Once && database::is_unsupported(error) =>
            {
                tracing::info!(%error, lane = W::LANE, "groups are planned each time from now on");
                self.planning = Planning::EachTime;
                self.connection = None;
                self.write_once(items).await
            }
            _ => written,
        }
    }

    async fn write_once(
        &mut self,
        items: &[W::Item],
    ) -> Result<Vec<Option<W::Written>>, Unwritten> {
        let mut connection = self.connection().await.map_err(Unwritten::NotSent)?;
        failpoint!(&format!("{}-before-commit", W::LANE));
        let begun = Instant::now();
        let mut written = self.send(&mut connection.borrowed, items).await;
        if written.is_ok() && begun.elapsed() >= SLOW_COMMIT {
            let durable = store::wait_until_durable(&mut connection.borrowed).bounded();
            if let Err(error) = durable.await {
                // Whatever it was: the group may be committed, and not for good.
                written = Err(sqlx::Error::Io(std::io::Error::other(error)));
            }
        }
        connection.used = Instant::now();
        match &written {
            Err(error) if database::is_wrong_connection(error) => {
                tracing::warn!(%error, lane = W::LANE, "a lane gives its connection up");
                connection.borrowed.discard();
            }
            _ if self.kind.may_keep_connections() => self.connection = Some(connection),
            // Closed.
            _ => drop(connection),
        }
        written.map_err(Unwritten::Failed)
    }

    async fn send(
        &self,
        borrowed: &mut BorrowedConnection,
        items: &[W::Item],
    ) -> sqlx::Result<Vec<Option<W::Written>>> {
        let Some(merchant) = items.first().map(W::merchant) else {
            return Ok(Vec::new());
        };
        if self.kind.engine.distribution() == Distribution::OneServer {
            return self.kind.writer.write(borrowed, items).bounded().await;
        }
        // Merchants whose hashes are the same share a line.
        if items.iter().any(|item| W::merchant(item) != merchant) {
            let error = "the group's items have several merchants".to_owned();
            return Err(sqlx::Error::InvalidArgument(error));
        }
        self.kind
            .writer
            .write_of(borrowed, merchant, items)
            .bounded()
            .await
    }

    async fn connection(&mut self) -> sqlx::Result<Connection> {
        if let Some(mut kept) = self.connection.take().filter(|kept| !kept.is_old()) {
            if kept.is_alive().await {
                return Ok(kept);
            }
            kept.borrowed.discard();
        }
        Connection::open(self.kind.engine.pool(), self.planning).await
    }
}

impl<W: GroupWriter> NotSent<W> {
    /// Tells the submitters of its items, and of `others`.
    pub(super) fn refuse(self, others: Vec<Waiting<W>>) {
        let others = others.into_iter();
        let others = others.map(|waiting| (waiting.item, waiting.reply));
        let error = Arc::new(self.error);
        let mut count = 0_u64;
        for (item, reply) in self.items.into_iter().chain(others) {
            drop(reply.send(Grouped::NotSent(item, Arc::clone(&error))));
            count += 1;
        }
        tracing::warn!(%error, lane = W::LANE, items = count, "no connection; nothing was sent of what waited");
    }
}

fn fail_all<W: GroupWriter>(items: impl Iterator<Item = (W::Item, Reply<W>)>, error: sqlx::Error) {
    let error = Arc::new(error);
    for (item, reply) in items {
        drop(reply.send(Grouped::Failed(item, Arc::clone(&error))));
    }
}

impl Connection {
    async fn open(pool: &PgPool, planning: Planning) -> sqlx::Result<Self> {
        let mut borrowed = database::acquire(pool).await?;
        borrowed.close_on_drop();
        sqlx::raw_sql(planning.settings())
            .execute(&mut *borrowed)
            .bounded()
            .await?;
        Ok(Self {
            borrowed,
            opened: Instant::now(),
            used: Instant::now(),
        })
    }

    /// A connection that was idle may have ended meanwhile. What is sent on it then may have been carried out, as far as anyone
    /// knows, so it is asked first.
    async fn is_alive(&mut self) -> bool {
        if !self.is_idle() {
            return true;
        }
        let question = sqlx::raw_sql("select").execute(&mut *self.borrowed);
        question.within(PATIENCE_WHEN_IDLE).await.is_ok()
    }

    fn is_idle(&self) -> bool {
        self.used.elapsed() >= IDLE
    }

    fn is_old(&self) -> bool {
        self.opened.elapsed() > database::MAX_LIFETIME
    }
}

/// How a group's statement is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planning {
    /// Once a connection, as nested loops over whole keys: the plan does not depend on how full the tables were when it was made,
    /// and is right for a group of any size, because no statement compares its group with itself.
    Once,
    /// Anew for each group. Citus plans a statement like ours only with its values.
    EachTime,
}

impl From<Distribution> for Planning {
    fn from(distribution: Distribution) -> Self {
        match distribution {
            Distribution::OneServer => Self::Once,
            Distribution::ByMerchant => Self::EachTime,
        }
    }
}

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
