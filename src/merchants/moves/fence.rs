//! The fence: triggers that refuse the writes of merchants that are moving, or have moved, and the changes that need it.
//!
//! Making a trigger takes a lock that waits for the writers of the table, and that later writers wait for. So once it is made, nobody
//! writes without it: not even a process that was paused, and goes on later. The triggers fire after each row: before it, PostgreSQL
//! would lock every row of everybody that is updated a second time.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::error::MoveError;
use super::side::Side;
use super::store;
use super::tables::{CLAIMS, fenced};
use crate::database::{Bounded, is_lock_timeout};
use crate::merchants::{Cell, MoveState};

/// How long a change waits for a lock at first. The table's writers wait behind it for as long.
const FIRST_LOCK_WAIT: Duration = Duration::from_millis(200);

/// How long it waits in the end. An autovacuum gives way to whoever waits for longer than `deadlock_timeout`, 1 s.
const LONGEST_LOCK_WAIT: Duration = Duration::from_millis(1500);

/// The pause between two tries at first; each further one is twice as long.
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

/// Makes a change in one short transaction. Tries it again while others hold the tables' locks, with growing pauses.
pub(super) async fn change(
    side: &mut Side,
    merchant_id: &str,
    change: Change<'_>,
) -> Result<(), MoveError> {
    let begun = Instant::now();
    let (mut lock_wait, mut pause) = (FIRST_LOCK_WAIT, FIRST_PAUSE);
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
            return Err(match is_lock_timeout(&error) {
                true => MoveError::Locked { side: side.name },
                false => side.failed(error),
            });
        }
        sleep(pause).await;
        lock_wait = (lock_wait * 3 / 2).min(LONGEST_LOCK_WAIT);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    if matches!(change, Change::Serve | Change::Forget) {
        drop_unused(&mut side.control, merchant_id).await;
    }
    Ok(())
}

/// Others held a lock for too long, or a deadlock was broken at our cost: nothing was changed, and the next try may succeed.
fn has_given_way(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    is_lock_timeout(error) || code.as_deref() == Some("40P01")
}

async fn attempt(
    connection: &mut PgConnection,
    merchant_id: &str,
    change: &Change<'_>,
    lock_wait: Duration,
) -> sqlx::Result<()> {
    run(connection, "begin").await?;
    store::begin_change(connection, merchant_id, lock_wait).await?;
    match change {
        Change::Announce { to, move_id } => {
            store::announce(connection, merchant_id, *to, *move_id).await?;
        }
        Change::RefuseClaims => CLAIM_FENCE.make(connection).await?,
        Change::RefuseWrites => {
            store::set_state(connection, merchant_id, MoveState::Copying).await?;
            WRITE_FENCE.make(connection).await?;
        }
        Change::Leave => store::set_state(connection, merchant_id, MoveState::Moved).await?,
        Change::Arrive { row, from, move_id } => {
            if !store::arrive(connection, row, *from, *move_id).await? {
                return Err(sqlx::Error::RowNotFound);
            }
            make_all(connection).await?;
        }
        Change::Serve => {
            store::serve(connection, merchant_id).await?;
            make_all(connection).await?;
        }
        Change::Forget => {
            store::forget(connection, merchant_id).await?;
            make_all(connection).await?;
        }
    }
    run(connection, "commit").await
}

async fn make_all(connection: &mut PgConnection) -> sqlx::Result<()> {
    CLAIM_FENCE.make(connection).await?;
    WRITE_FENCE.make(connection).await
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
    /// Makes the triggers, or makes them anew, for all merchants that they hold for now.
    async fn make(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let tables = (self.tables)();
        // All locks come first, so that the writers of one table do not wait for those of another.
        let lock = format!(
            "lock table {} in share row exclusive mode",
            tables.join(", ")
        );
        run(connection, &lock).await?;
        let merchants = store::literals_of_moving(connection, self.states).await?;
        let condition = match merchants.is_empty() {
            true => "false".to_owned(),
            false => format!("new.merchant_id in ({merchants})"),
        };
        for table in tables {
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
