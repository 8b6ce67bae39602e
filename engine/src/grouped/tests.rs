//! Groups of a writer whose steps the test holds.

use std::sync::Arc;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::database::{Distribution, pool_options};
use crate::{FingerprintSecrets, IdempotencyConfig};

/// Says when it is about to wait in the queue.
struct Item {
    number: u32,
    queued: mpsc::UnboundedSender<u32>,
}

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

    async fn write(&self, _: &mut PgConnection, items: &[Item]) -> sqlx::Result<Vec<Option<()>>> {
        drop(
            self.written
                .send(items.iter().map(|item| item.number).collect()),
        );
        self.gate.acquire().await.expect("open").forget();
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
