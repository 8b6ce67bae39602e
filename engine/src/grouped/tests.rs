//! Groups of a writer whose steps the test holds.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::*;
use crate::database::{Distribution, pool_options};
use crate::{FingerprintSecrets, IdempotencyConfig};

/// Says when it is about to wait in the queue.
struct Item {
    number: u32,
    queued: mpsc::UnboundedSender<u32>,
}

/// A group with an item of this number is refused as one that has to be planned with its values.
const REFUSED: u32 = 1_000;

/// Each write waits for a permit, and notes what it writes.
struct Held<const NEEDS_CALLER: bool> {
    gate: Arc<Semaphore>,
    written: mpsc::UnboundedSender<Vec<u32>>,
}

impl<const NEEDS_CALLER: bool> GroupWriter for Held<NEEDS_CALLER> {
    type Item = Item;
    type Written = ();

    const LANE: &'static str = "test";
    const NEEDS_CALLER: bool = NEEDS_CALLER;

    fn merchant(item: &Item) -> &str {
        // The push follows in the same step of the test's only thread.
        let _ = item.queued.send(item.number);
        "one"
    }

    fn order(one: &Item, other: &Item) -> Ordering {
        one.number.cmp(&other.number)
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        items: &[Item],
    ) -> sqlx::Result<Vec<Option<()>>> {
        let numbers: Vec<u32> = items.iter().map(|item| item.number).collect();
        let is_refused = numbers.contains(&REFUSED);
        drop(self.written.send(numbers));
        self.gate.acquire().await.expect("open").forget();
        if is_refused {
            sqlx::raw_sql("do $$ begin raise exception using errcode = '0A000'; end $$")
                .execute(connection)
                .await?;
        }
        Ok(items.iter().map(|_| Some(())).collect())
    }
}

fn engine(pool: PgPool) -> Engine {
    let secrets = FingerprintSecrets::new("a secret of the tests");
    Engine::on(
        pool,
        Distribution::OneServer,
        IdempotencyConfig::default(),
        &secrets,
    )
}

/// What is written of an item whose caller went away while another was being written, and of one whose caller waits.
async fn written_after_a_caller_left<const NEEDS_CALLER: bool>(pool: PgPool) -> Vec<u32> {
    let engine = engine(pool);
    let (queued, mut in_queue) = mpsc::unbounded_channel();
    let (written, mut groups) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let writer = Held::<NEEDS_CALLER> {
        gate: Arc::clone(&gate),
        written,
    };
    let commit = Arc::new(GroupCommit::start(&engine, writer, 1));
    let submit = |number| {
        let (engine, commit, queued) = (engine.clone(), Arc::clone(&commit), queued.clone());
        tokio::spawn(async move {
            let item = Item { number, queued };
            let submitted = engine.run(async move { commit.submit(item).await.is_ok() });
            submitted.await.expect("no panic")
        })
    };
    let first = submit(1);
    assert_eq!(groups.recv().await, Some(vec![1]), "it is being written");
    let leaving = submit(2);
    let staying = submit(3);
    while in_queue.recv().await != Some(3) {}
    leaving.abort();
    assert!(leaving.await.expect_err("gone").is_cancelled());
    gate.add_permits(2);
    assert!(first.await.expect("no panic"));
    let group = groups.recv().await.expect("a second group");
    assert!(staying.await.expect("no panic"));
    group
}

#[sqlx::test(migrations = false)]
async fn what_was_not_sent_is_dropped_with_its_caller(pool: PgPool) {
    assert_eq!(written_after_a_caller_left::<true>(pool).await, [3]);
}

#[sqlx::test(migrations = false)]
async fn what_has_to_be_written_needs_no_caller(pool: PgPool) {
    assert_eq!(written_after_a_caller_left::<false>(pool).await, [2, 3]);
}

#[tokio::test]
async fn without_a_connection_all_who_wait_are_told_at_once() {
    // Nobody listens on port 1.
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(1);
    let pool = pool_options().connect_lazy_with(nowhere);
    let (queued, _in_queue) = mpsc::unbounded_channel();
    let (written, mut groups) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let commit = GroupCommit::start(&engine(pool), Held::<true> { gate, written }, 1);
    let submitted = (0..64).map(|number| {
        let queued = queued.clone();
        commit.submit(Item { number, queued })
    });
    for submitted in futures_util::future::join_all(submitted).await {
        assert!(matches!(submitted, Ok(Grouped::NotSent(..))));
    }
    assert!(groups.try_recv().is_err(), "nothing was written");
}

/// Its statement is refused where it was planned without its values, as Citus does.
struct PlannedWithValues(mpsc::UnboundedSender<()>);

impl GroupWriter for PlannedWithValues {
    type Item = ();
    type Written = ();

    const LANE: &'static str = "test";

    fn merchant((): &()) -> &str {
        "one"
    }

    fn order((): &(), (): &()) -> Ordering {
        Ordering::Equal
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        items: &[()],
    ) -> sqlx::Result<Vec<Option<()>>> {
        let _ = self.0.send(());
        sqlx::raw_sql(
            "do $$ begin
                if current_setting('plan_cache_mode') <> 'force_custom_plan' then
                    raise exception using errcode = '0A000';
                end if;
            end $$",
        )
        .execute(connection)
        .await?;
        Ok(items.iter().map(|()| Some(())).collect())
    }
}

#[sqlx::test(migrations = false)]
async fn a_server_that_plans_only_with_values_gets_them_from_then_on(pool: PgPool) {
    let (tried, mut tries) = mpsc::unbounded_channel();
    let commit = GroupCommit::start(&engine(pool), PlannedWithValues(tried), 1);
    for expected_tries in [2, 1] {
        let submitted = commit.submit(()).await;
        assert!(matches!(submitted, Ok(Grouped::Written((), Some(())))));
        let seen = std::iter::from_fn(|| tries.try_recv().ok()).count();
        assert_eq!(seen, expected_tries);
    }
}

/// A lane of at most two groups side by side, and what its writer writes.
struct Lane {
    engine: Engine,
    commit: Arc<GroupCommit<Held<true>>>,
    gate: Arc<Semaphore>,
    groups: mpsc::UnboundedReceiver<Vec<u32>>,
    queued: mpsc::UnboundedSender<u32>,
    in_queue: mpsc::UnboundedReceiver<u32>,
    database: PgConnectOptions,
}

impl Lane {
    /// On a pool of ten connections, after its commits have been measured often enough.
    async fn measured(database: PgConnectOptions, pace: fn() -> Pace) -> (Self, PgPool) {
        let pool = pool_options().max_connections(10);
        let pool = pool.connect_with(database.clone()).await;
        let pool = pool.expect("the database");
        let engine = engine(pool.clone());
        let (queued, in_queue) = mpsc::unbounded_channel();
        let (written, groups) = mpsc::unbounded_channel();
        let gate = Arc::new(Semaphore::new(0));
        let writer = Held {
            gate: Arc::clone(&gate),
            written,
        };
        let mut lane = Self {
            commit: Arc::new(GroupCommit::start_at(&engine, writer, 2, pace)),
            engine,
            gate,
            groups,
            queued,
            in_queue,
            database,
        };
        lane.measure().await;
        (lane, pool)
    }

    /// Returns when the item is in the queue and the lane could have taken it: it takes as long as to open two connections.
    async fn submit(&mut self, number: u32) -> JoinHandle<Grouped<Held<true>>> {
        let (engine, commit) = (self.engine.clone(), Arc::clone(&self.commit));
        let queued = self.queued.clone();
        let submitted = tokio::spawn(async move {
            let submitted = engine.run(async move { commit.submit(Item { number, queued }).await });
            submitted.await.expect("no panic").expect("a place")
        });
        while self.in_queue.recv().await != Some(number) {}
        for _ in 0..2 {
            let opened = PgConnection::connect_with(&self.database).await;
            let closed = opened.expect("the database").close().await;
            closed.expect("closed");
        }
        submitted
    }

    /// Writes groups of one, one after the other, until their commits have been measured often enough.
    async fn measure(&mut self) {
        for number in 100..100 + pace::IN_A_ROW {
            self.gate.add_permits(1);
            let submitted = self.submit(number).await;
            assert!(is_written(submitted).await);
            assert_eq!(self.groups.recv().await, Some(vec![number]));
        }
    }
}

async fn is_written(submitted: JoinHandle<Grouped<Held<true>>>) -> bool {
    matches!(
        submitted.await.expect("no panic"),
        Grouped::Written(_, Some(()))
    )
}

/// Each commit is measured, and slow.
fn always_slow() -> Pace {
    Pace::new(Duration::ZERO, Duration::ZERO)
}

/// Each commit is measured, and quick.
fn always_quick() -> Pace {
    Pace::new(Duration::MAX, Duration::ZERO)
}

#[sqlx::test(migrations = false)]
async fn while_commits_are_slow_a_further_group_goes_once_as_many_wait_as_are_under_way(
    _: PgPoolOptions,
    it: PgConnectOptions,
) {
    let (mut lane, _) = Lane::measured(it, always_slow).await;
    let first = lane.submit(1).await;
    assert_eq!(lane.groups.recv().await, Some(vec![1]));
    let second = lane.submit(2).await;
    assert_eq!(lane.groups.recv().await, Some(vec![2]), "beside the first");
    let rest = [lane.submit(3).await, lane.submit(4).await];
    assert!(lane.groups.try_recv().is_err(), "two are the most");
    lane.gate.add_permits(1);
    assert!(is_written(first).await);
    assert_eq!(lane.groups.recv().await, Some(vec![3, 4]));
    // The second and these two are under way.
    lane.gate.add_permits(1);
    assert!(is_written(second).await);
    let fewer = lane.submit(5).await;
    assert!(
        lane.groups.try_recv().is_err(),
        "one does not go beside two"
    );
    let enough = lane.submit(6).await;
    assert_eq!(lane.groups.recv().await, Some(vec![5, 6]));
    lane.gate.add_permits(2);
    for submitted in rest.into_iter().chain([fewer, enough]) {
        assert!(is_written(submitted).await);
    }
}

#[sqlx::test(migrations = false)]
async fn while_commits_are_quick_groups_go_one_after_the_other(
    _: PgPoolOptions,
    it: PgConnectOptions,
) {
    let (mut lane, _) = Lane::measured(it, always_quick).await;
    let mut submitted = Vec::new();
    for number in 1..=3 {
        submitted.push(lane.submit(number).await);
    }
    assert_eq!(lane.groups.recv().await, Some(vec![1]));
    assert!(lane.groups.try_recv().is_err());
    lane.gate.add_permits(2);
    assert_eq!(lane.groups.recv().await, Some(vec![2, 3]));
    for submitted in submitted {
        assert!(is_written(submitted).await);
    }
}

#[sqlx::test(migrations = false)]
async fn what_waits_for_a_further_connection_goes_with_the_first_that_is_free(
    _: PgPoolOptions,
    it: PgConnectOptions,
) {
    let (mut lane, pool) = Lane::measured(it, always_slow).await;
    let mut others = Vec::new();
    for _ in 0..9 {
        others.push(pool.acquire().await.expect("one"));
    }
    let first = lane.submit(1).await;
    let second = lane.submit(2).await;
    assert_eq!(lane.groups.recv().await, Some(vec![1]));
    assert!(lane.groups.try_recv().is_err(), "there is no connection");
    lane.gate.add_permits(2);
    assert!(is_written(first).await);
    assert!(is_written(second).await);
    assert_eq!(lane.groups.recv().await, Some(vec![2]));
}

#[sqlx::test(migrations = false)]
async fn a_group_that_lost_its_connection_refuses_nobody_while_another_is_under_way(
    _: PgPoolOptions,
    it: PgConnectOptions,
) {
    let (mut lane, pool) = Lane::measured(it, always_slow).await;
    let refused = lane.submit(REFUSED).await;
    assert_eq!(lane.groups.recv().await, Some(vec![REFUSED]));
    let beside = lane.submit(2).await;
    assert_eq!(lane.groups.recv().await, Some(vec![2]));
    let waiting = lane.submit(3).await;
    // It has to be sent again on a new connection, and the pool opens none any more.
    let closing = tokio::spawn(async move { pool.close().await });
    tokio::task::yield_now().await;
    lane.gate.add_permits(1);
    let refused = refused.await.expect("no panic");
    assert!(matches!(refused, Grouped::NotSent(..)));
    lane.gate.add_permits(2);
    assert!(is_written(beside).await);
    assert!(is_written(waiting).await);
    drop(lane);
    closing.await.expect("closed");
}
