//! The fence: triggers that refuse the writes of merchants that are moving, or have moved, and the changes that need it.
//!
//! Making a trigger takes a lock that waits for the writers of the table, and that later writers wait for. So once it is made, nobody
//! writes without it: not even a process that was paused, and goes on later. The triggers fire after each row: before it, PostgreSQL
//! would lock every row of everybody that is updated a second time. A move's own rows do not fire them either: PostgreSQL would remember
//! each row of the copy until that ends.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::error::MoveError;
use super::side::Side;
use super::store;
use super::tables::{CLAIMS, IN_LOCK_ORDER, fenced};
use crate::database::{Bounded, has_sqlstate, is_lock_timeout};
use crate::merchants::{Cell, MoveState};

/// How long a change waits for all of its locks at first. The tables' writers wait behind it for as long.
const FIRST_LOCK_WAIT: Duration = Duration::from_millis(200);

/// How long it waits later. A writer that takes the tables in another order may wait for a change that waits for the writer. PostgreSQL
/// lets one of them fail when it has waited for `deadlock_timeout`, 1 s: this is less, so the change gives way, and never the writer.
const LONGER_LOCK_WAIT: Duration = Duration::from_millis(900);

/// How long it waits in the end. An autovacuum gives way only to whoever waits for longer than `deadlock_timeout`.
const LAST_LOCK_WAIT: Duration = Duration::from_millis(1500);

/// For how long a change is tried before it waits for as long as that.
const BRIEF_FOR: Duration = Duration::from_secs(10);

/// The first pause between two tries. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// For how long a change is tried. Longer than a session may stand still in a transaction (10 s).
const PATIENCE: Duration = Duration::from_secs(30);

/// A change of what a database says of the merchant, and of what it refuses.
pub(super) enum Change<'a> {
    /// Source: the merchant leaves for this cell. Nothing is refused by the database yet.
    Announce { to: Cell, move_id: Uuid },
    /// Source: new claims are refused.
    RefuseClaims,
    /// Source: every write is refused.
    RefuseWrites,
    /// Source: the other cell serves the merchant.
    Leave,
    /// Destination: the merchant arrives. Every write but the move's own is refused.
    Arrive {
        row: &'a serde_json::Value,
        from: Option<Cell>,
        move_id: Uuid,
    },
    /// This database serves the merchant, and nothing of it is refused any more.
    Serve,
    /// Destination: the merchant's row is gone with all of its rows, and nothing is left to refuse.
    Forget,
}

impl Change<'_> {
    /// What it changes of the triggers.
    fn fences(&self) -> &'static [&'static Fence] {
        match self {
            Change::Announce { .. } | Change::Leave => &[],
            Change::RefuseClaims => &[&CLAIM_FENCE],
            Change::RefuseWrites => &[&WRITE_FENCE],
            Change::Arrive { .. } | Change::Serve | Change::Forget => &[&CLAIM_FENCE, &WRITE_FENCE],
        }
    }
}

/// Makes a change in one short transaction. Tries it again while others hold the tables' locks, with growing pauses.
pub(super) async fn change(
    side: &mut Side,
    merchant_id: &str,
    change: Change<'_>,
) -> Result<(), MoveError> {
    let begun = Instant::now();
    let mut lock_wait = FIRST_LOCK_WAIT;
    let pauses = ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times();
    let mut pauses = pauses.build();
    loop {
        let tried = attempt(&mut side.control, merchant_id, &change, lock_wait).await;
        let Err(error) = tried else { break };
        // A connection that cannot roll back is of no use for the next try either, whose error says so.
        drop(run(&mut side.control, "rollback").await);
        if matches!(error, sqlx::Error::RowNotFound) {
            let why = "was created at the destination meanwhile, and is served there";
            return Err(MoveError::refused(merchant_id, why));
        }
        if !has_given_way(&error) {
            return Err(side.failed(error));
        }
        if begun.elapsed() > PATIENCE {
            return Err(match has_waited(&error) {
                true => MoveError::Locked { side: side.name },
                false => side.failed(error),
            });
        }
        sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        lock_wait = next_lock_wait(lock_wait, begun.elapsed());
    }
    if matches!(change, Change::Serve | Change::Forget) {
        drop_unused(&mut side.control, merchant_id).await;
    }
    Ok(())
}

fn next_lock_wait(lock_wait: Duration, elapsed: Duration) -> Duration {
    match elapsed < BRIEF_FOR {
        true => (lock_wait * 3 / 2).min(LONGER_LOCK_WAIT),
        false => LAST_LOCK_WAIT,
    }
}

/// Others held a lock for too long, or a deadlock was broken at our cost: nothing was changed, and the next try may succeed.
fn has_given_way(error: &sqlx::Error) -> bool {
    has_waited(error) || has_sqlstate(error, &["40P01"])
}

/// One lock took too long, or all of them together.
fn has_waited(error: &sqlx::Error) -> bool {
    is_lock_timeout(error) || has_sqlstate(error, &["57014"])
}

async fn attempt(
    connection: &mut PgConnection,
    merchant_id: &str,
    change: &Change<'_>,
    lock_wait: Duration,
) -> sqlx::Result<()> {
    run(connection, "begin").await?;
    store::begin_change(connection, merchant_id, lock_wait).await?;
    let fences = change.fences();
    lock(connection, fences, lock_wait).await?;
    match change {
        Change::Announce { to, move_id } => {
            store::announce(connection, merchant_id, *to, *move_id).await?;
        }
        Change::RefuseClaims => {}
        Change::RefuseWrites => {
            store::set_state(connection, merchant_id, MoveState::Copying).await?;
        }
        Change::Leave => store::set_state(connection, merchant_id, MoveState::Moved).await?,
        Change::Arrive { row, from, move_id } => {
            if !store::arrive(connection, row, *from, *move_id).await? {
                return Err(sqlx::Error::RowNotFound);
            }
        }
        Change::Serve => store::serve(connection, merchant_id).await?,
        Change::Forget => store::forget(connection, merchant_id).await?,
    }
    for fence in fences {
        fence.make(connection).await?;
    }
    run(connection, "commit").await
}

/// Takes all locks of a change before anything else, so that the writers of one table do not wait while it works on those of another.
async fn lock(
    connection: &mut PgConnection,
    fences: &[&Fence],
    lock_wait: Duration,
) -> sqlx::Result<()> {
    let fenced: Vec<_> = fences.iter().flat_map(|fence| (fence.tables)()).collect();
    let tables = IN_LOCK_ORDER
        .into_iter()
        .filter(|table| fenced.contains(table));
    let tables: Vec<_> = tables.collect();
    if tables.is_empty() {
        return Ok(());
    }
    // `lock_timeout` is for each lock, and the first ones are held while the last one is waited for.
    let limit = format!(
        "set local statement_timeout = '{}ms'",
        lock_wait.as_millis()
    );
    run(connection, &limit).await?;
    let lock = format!(
        "lock table {} in share row exclusive mode",
        tables.join(", ")
    );
    run(connection, &lock).await?;
    run(connection, "set local statement_timeout to default").await
}

/// Triggers of one name and what they refuse.
struct Fence {
    trigger: &'static str,
    events: &'static str,
    /// Of the merchants in these states.
    states: &'static [MoveState],
    tables: fn() -> Vec<&'static str>,
}

/// Refuses new claims. What is under way goes on: it writes elsewhere.
const CLAIM_FENCE: Fence = Fence {
    trigger: "moving_claims",
    events: "insert",
    states: &[
        MoveState::Leaving,
        MoveState::Copying,
        MoveState::Moved,
        MoveState::Arriving,
    ],
    tables: || vec![CLAIMS],
};

/// Refuses every write.
const WRITE_FENCE: Fence = Fence {
    trigger: "moving_writes",
    events: "insert or update",
    states: &[MoveState::Copying, MoveState::Moved, MoveState::Arriving],
    tables: || fenced().collect(),
};

impl Fence {
    /// Makes the triggers, or makes them anew, for all merchants that they hold for now. The tables are locked.
    async fn make(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let merchants = store::literals_of_moving(connection, self.states).await?;
        let condition = match merchants.is_empty() {
            true => "false".to_owned(),
            false => format!(
                "new.merchant_id in ({merchants}) \
                 and current_setting('payonce.moving', true) is distinct from new.merchant_id"
            ),
        };
        for table in (self.tables)() {
            let make = format!(
                "create or replace trigger {} after {} on {table} for each row when ({condition}) \
                 execute function refuse_writes_of_a_moving_merchant()",
                self.trigger, self.events
            );
            run(connection, &make).await?;
        }
        Ok(())
    }

    /// Drops the triggers if they refuse nothing. This takes a lock that also readers wait for, so it is tried once and briefly: a
    /// trigger that refuses nothing does no harm.
    async fn drop_unused(
        &self,
        connection: &mut PgConnection,
        merchant_id: &str,
    ) -> sqlx::Result<()> {
        if !store::literals_of_moving(connection, self.states)
            .await?
            .is_empty()
        {
            return Ok(());
        }
        for table in (self.tables)() {
            run(connection, "begin").await?;
            store::begin_change(connection, merchant_id, FIRST_LOCK_WAIT).await?;
            run(
                connection,
                &format!("drop trigger if exists {} on {table}", self.trigger),
            )
            .await?;
            run(connection, "commit").await?;
        }
        Ok(())
    }
}

async fn drop_unused(connection: &mut PgConnection, merchant_id: &str) {
    for fence in [&CLAIM_FENCE, &WRITE_FENCE] {
        if let Err(error) = fence.drop_unused(connection, merchant_id).await {
            tracing::debug!(%error, trigger = fence.trigger, "triggers that refuse nothing stay");
            drop(run(connection, "rollback").await);
        }
    }
}

async fn run(connection: &mut PgConnection, sql: &str) -> sqlx::Result<()> {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    sql.execute(connection).bounded().await.map(drop)
}

#[cfg(test)]
mod tests {
    use sqlx::PgPool;

    use super::*;

    #[test]
    fn a_writer_in_another_order_is_spared_until_nothing_else_helps() {
        let (mut lock_wait, mut elapsed) = (FIRST_LOCK_WAIT, Duration::ZERO);
        while elapsed < BRIEF_FOR {
            assert!(lock_wait < Duration::from_secs(1), "{lock_wait:?}");
            elapsed += lock_wait;
            lock_wait = next_lock_wait(lock_wait, elapsed);
        }
        // An autovacuum.
        assert!(lock_wait > Duration::from_secs(1), "{lock_wait:?}");
    }

    /// The tables that a session has locked as a change does, while it waits for the lock of this one.
    const LOCKED: &str = "select array_agg(granted.relation::regclass::text)
        from pg_locks waiting
        left join pg_locks granted
            on granted.pid = waiting.pid
            and granted.granted
            and granted.mode = 'ShareRowExclusiveLock'
            and granted.relation is not null
        where waiting.relation = $1::regclass
            and waiting.mode = 'ShareRowExclusiveLock'
            and not waiting.granted
        having count(*) > 0";

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn a_change_locks_the_tables_in_the_order_of_payments(pool: PgPool) {
        let order = [
            "idempotency_keys",
            "unsettled_keys",
            "payments",
            "refunds",
            "merchants",
            "api_keys",
        ];
        for (place, table) in order.into_iter().enumerate() {
            let mut writer = pool.begin().await.expect("a transaction");
            let hold = format!("lock table {table} in row exclusive mode");
            run(&mut writer, &hold).await.expect("it is free");
            let mut mover = pool.acquire().await.expect("a connection");
            let changing = tokio::spawn(async move {
                let patience = Duration::from_secs(60);
                attempt(&mut mover, "acme", &Change::Serve, patience).await
            });
            let deadline = Instant::now() + Duration::from_secs(30);
            let locked: Vec<Option<String>> = loop {
                assert!(Instant::now() < deadline, "nobody waits for {table}");
                let locked = sqlx::query_scalar(LOCKED).bind(table).fetch_optional(&pool);
                if let Some(locked) = locked.await.expect("the locks") {
                    break locked;
                }
            };
            let mut locked: Vec<String> = locked.into_iter().flatten().collect();
            let mut before = order[..place].to_vec();
            locked.sort_unstable();
            before.sort_unstable();
            assert_eq!(locked, before, "before {table}");
            writer.rollback().await.expect("rolled back");
            changing.await.expect("no panic").expect("it was free");
        }
    }
}
