//! A lane: it takes groups from the queue and gives them to its sessions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::fair_queue::Turns;
use super::pace::Pace;
use super::session::{NotSent, Planning, Session};
use super::{CloseOnDrop, GroupWriter, Kind, Progress};
use crate::config::LARGEST_GROUP;
use crate::database::{Distribution, shortage};

/// How long a lane goes without a further session after it got no connection for one.
const WITHOUT_FURTHER: Duration = Duration::from_secs(1);

/// Takes one group after the other, and while commits are slow several side by side, each on a session of its own.
pub(super) struct Lane<W: GroupWriter> {
    kind: Arc<Kind<W>>,
    queue: CloseOnDrop<W>,
    group_size: usize,
    turns: Turns,
    /// Those that have no group. The last has been used last.
    idle: Vec<Session<W>>,
    under_way: FuturesUnordered<BoxFuture<'static, Done<W>>>,
    /// The number of groups under way, and of their items.
    groups: u32,
    items: usize,
    pace: Pace,
    planning: Planning,
    /// No further session is opened before this time.
    alone_until: Option<Instant>,
    progress: Progress,
}

/// What a session has done.
enum Done<W: GroupWriter> {
    /// It has written a group, or tried to.
    Group {
        session: Session<W>,
        items: usize,
        sent: Result<(), NotSent<W>>,
        commit: Option<Duration>,
    },
    /// It got ready for a further group.
    Ready(Session<W>, sqlx::Result<()>),
}

impl<W: GroupWriter> Lane<W> {
    pub(super) fn new(kind: Arc<Kind<W>>, queue: CloseOnDrop<W>, progress: Progress) -> Self {
        let distribution = kind.engine.distribution();
        Self {
            queue,
            // The service checks the range of its settings. A library user may give 0, with which no group would ever be taken.
            group_size: usize::from(kind.engine.config().group_size.clamp(1, LARGEST_GROUP)),
            turns: distribution.into(),
            idle: Vec::new(),
            under_way: FuturesUnordered::new(),
            groups: 0,
            items: 0,
            pace: (kind.pace)(),
            planning: distribution.into(),
            alone_until: None,
            progress,
            kind,
        }
    }

    /// Returns when the queue is closed and the groups that were taken before are written.
    pub(super) async fn run(mut self) {
        let mut is_open = true;
        while is_open || self.groups > 0 {
            // From before the look on, so that a shortage is not missed.
            let shortage = shortage::begins();
            if !self.idle.is_empty() && !self.kind.may_keep_connections() {
                self.idle.clear();
            }
            let may_take = is_open && self.may_take();
            let wanted = self.wanted();
            tokio::select! {
                Some(done) = self.under_way.next() => self.is_done(done),
                () = self.queue.0.wait_for(wanted, self.group_size), if may_take => is_open = self.take(),
                () = shortage => {}
            }
        }
    }

    /// A further group goes beside others only once as many items wait as they have. Groups that take whatever there is become ever
    /// smaller, and each costs a commit.
    fn wanted(&self) -> usize {
        self.items.max(1)
    }

    fn may_take(&self) -> bool {
        self.groups == 0
            || (self.pace.is_slow()
                && self.under_way.len() < self.kind.side_by_side
                && self.kind.may_keep_connections()
                && self.alone_until.is_none_or(|until| Instant::now() >= until))
    }

    /// Returns false if the queue is closed.
    fn take(&mut self) -> bool {
        let session = self.idle.pop();
        let session = session.unwrap_or_else(|| Session::new(&self.kind, self.planning));
        self.give_group_to(session)
    }

    /// Returns false if the queue is closed.
    fn give_group_to(&mut self, mut session: Session<W>) -> bool {
        // What a further session could not send for want of a connection would have been written by the others.
        if self.groups > 0 && !session.is_ready() {
            let ready = async move {
                let ready = session.get_ready().await;
                Done::Ready(session, ready)
            };
            self.under_way.push(ready.boxed());
            return true;
        }
        let Some(group) = self.queue.0.take(self.group_size, self.turns) else {
            return false;
        };
        let items = group.len();
        if self.groups == 0 {
            self.progress.set(Some(Instant::now()));
        }
        self.groups += 1;
        self.items += items;
        let measures = self.kind.measures_commits() && self.pace.begins_measuring(Instant::now());
        let written = async move {
            let sent = session.commit(group).await;
            let commit = match sent {
                Ok(()) if measures => session.measure_commit().await,
                _ => None,
            };
            Done::Group {
                session,
                items,
                sent,
                commit,
            }
        };
        self.under_way.push(written.boxed());
        true
    }

    fn is_done(&mut self, done: Done<W>) {
        match done {
            Done::Group {
                session,
                items,
                sent,
                commit,
            } => {
                self.groups -= 1;
                self.items -= items;
                // The database answers: what else is under way has its time from now on.
                self.progress.set((self.groups > 0).then(Instant::now));
                self.planning = session.planning();
                self.idle.push(session);
                if let Some(commit) = commit {
                    self.note(commit);
                }
                if !self.pace.is_slow() {
                    // The connections of the others are closed.
                    self.idle.drain(..self.idle.len() - 1);
                }
                if let Err(not_sent) = sent {
                    self.refuse(not_sent);
                }
            }
            Done::Ready(session, Ok(())) => {
                if self.queue.0.length() >= self.wanted() {
                    // If the queue is closed, the next look at it says so.
                    self.give_group_to(session);
                } else {
                    self.idle.push(session);
                }
            }
            Done::Ready(_, Err(error)) => {
                tracing::debug!(%error, lane = W::LANE, "no connection for a further group");
                self.alone_until = Some(Instant::now() + WITHOUT_FURTHER);
            }
        }
    }

    fn note(&mut self, commit: Duration) {
        metrics::gauge!("payonce_commit_seconds", "lane" => W::LANE).set(commit);
        if self.pace.note(commit) {
            let side_by_side = if self.pace.is_slow() {
                self.kind.side_by_side
            } else {
                1
            };
            let millis = commit.as_secs_f64() * 1000.0;
            tracing::info!(
                lane = W::LANE,
                side_by_side,
                commit_millis = millis,
                "the time of a commit says how many groups may go side by side"
            );
        }
    }

    /// There is no connection. All items that wait are refused now: trying each by itself, or each group in its turn, would let the
    /// last of them wait for minutes, and then do work whose caller has gone. While another group is under way, there is a connection
    /// for what waits.
    fn refuse(&self, not_sent: NotSent<W>) {
        let others = if self.groups == 0 {
            self.queue.0.take_all()
        } else {
            Vec::new()
        };
        not_sent.refuse(others);
    }
}

/// In a cluster, a group of several merchants would be of several nodes.
impl From<Distribution> for Turns {
    fn from(distribution: Distribution) -> Self {
        match distribution {
            Distribution::OneServer => Self::OfAll,
            Distribution::ByMerchant => Self::OfOne,
        }
    }
}
