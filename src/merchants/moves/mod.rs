//! Moves: a merchant goes from the database of one cell to that of another, and is served by one of them at most at each moment.
//!
//! In this order, each step committed before the next begins:
//!
//! 1. The source says that the merchant leaves (`LEAVING`). Its nodes answer the merchant's writes with 503 once they have seen that.
//! 2. The source refuses new claims, and what is under way ends. If it does not, the source serves the merchant again.
//! 3. The source refuses every write (`COPYING`).
//! 4. The destination says that the merchant arrives (`ARRIVING`), and refuses its writes, too.
//! 5. The rows are copied from one snapshot, checked, and committed.
//! 6. The source says that the merchant has moved (`MOVED`); then the destination serves it.
//!
//! Whatever dies on the way, the states in the two databases say where the same command goes on (`plan`). `fence` has the triggers by
//! which a database refuses writes, `copy` the rows, `side` what a database must be like.

mod copy;
mod error;
mod fence;
mod order;
mod plan;
mod secrets;
mod side;
mod store;
mod tables;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

pub use self::error::{Halted, MoveError};
use self::fence::{Change, change};
pub use self::order::{MoveOrder, Moved, Undone};
use self::plan::{Standing, Step, Undo, first_step, is_its_copy, what_to_undo};
use self::side::Side;
pub use self::tables::{OF_EACH_CELL, TABLES, Table};
use super::authenticator::TIME_TO_LIVE;
use super::standing::MoveState;

/// After this time every node has seen that a merchant leaves: what a node knows of an API key is at most as old as its cache allows, and
/// it was asked for before that. A node that has not seen it, because it was paused, is stopped by the fence; this only spares groups of
/// payments that one refused claim would break up.
const SEEN_BY_ALL_NODES: Duration = TIME_TO_LIVE.saturating_add(Duration::from_secs(1));

/// How often the keys that are still at work are counted.
const COUNTED_EVERY: Duration = Duration::from_millis(100);

/// Moves a merchant to another cell, or goes on with its move. `say` is told of each step.
///
/// # Errors
///
/// [`MoveError`]. After each of them the same call may be made again.
pub async fn run(order: &MoveOrder, say: &(dyn Fn(&str) + Sync)) -> Result<Moved, MoveError> {
    let mut cells = Cells::open(order).await?;
    let moved = cells.go_on(say).await;
    moved.map_err(|error| cells.halted(error))
}

/// Lets the source serve the merchant again, whose move has not come to its end. What has arrived at the destination is deleted first.
///
/// # Errors
///
/// [`MoveError`], also if the merchant has moved already.
pub async fn undo(order: &MoveOrder, say: &(dyn Fn(&str) + Sync)) -> Result<Undone, MoveError> {
    let mut cells = Cells::open(order).await?;
    let (source, destination) = cells.standings().await?;
    let undo = what_to_undo(
        &order.merchant_id,
        order.to_cell,
        &source,
        destination.as_ref(),
    )?;
    let copy =
        destination.filter(|there| undo == Undo::Discard || is_its_copy(&source, Some(there)));
    if let Some(copy) = copy {
        cells.discard(&copy).await?;
        say("what had arrived at the destination is deleted");
    } else if undo == Undo::Reopen {
        say(&format!(
            "nothing of this move has arrived in the database of --to-database-url; if that is not the database of cell {}, run this \
             again with that one's URL",
            order.to_cell
        ));
    }
    match undo {
        Undo::Nothing => Ok(Undone::NothingToUndo),
        Undo::Discard => Ok(Undone::Discarded),
        Undo::Reopen => {
            cells.reopen().await?;
            say("the source serves the merchant again");
            Ok(Undone::Reopened)
        }
    }
}

/// The two cells of a move.
struct Cells<'a> {
    order: &'a MoveOrder,
    source: Side,
    destination: Side,
    /// What the merchant's requests get for as long as nothing more is done.
    until_then: Option<&'static str>,
}

/// The source says that the merchant leaves, or is copied.
const WRITES_REFUSED: &str =
    "the merchant's writes stay refused until its move is ended, or is undone with --undo";

/// Neither database serves it.
const ALL_REFUSED: &str = "no database serves the merchant until the same command ends its move";

impl<'a> Cells<'a> {
    async fn open(order: &'a MoveOrder) -> Result<Self, MoveError> {
        if order.from_cell == Some(order.to_cell) {
            return Err(MoveError::SameCell(order.to_cell));
        }
        let mut source = Side::source(&order.source).await?;
        let mut destination = Side::destination(&order.destination).await?;
        if source.identity().await? == destination.identity().await? {
            return Err(MoveError::SameDatabase);
        }
        source.check().await?;
        destination.check().await?;
        Ok(Self {
            order,
            source,
            destination,
            until_then: None,
        })
    }

    async fn go_on(&mut self, say: &(dyn Fn(&str) + Sync)) -> Result<Moved, MoveError> {
        let (source, destination) = self.standings().await?;
        if matches!(source.state, Some(MoveState::Leaving | MoveState::Copying)) {
            self.until_then = Some(WRITES_REFUSED);
        }
        let (id, to) = (self.merchant(), self.order.to_cell);
        let step = first_step(id, to, &source, destination.as_ref())?;
        if step < Step::HandOver {
            secrets::compare(&mut self.source, &mut self.destination, id).await?;
        }
        if step <= Step::Announce {
            self.announce(say).await?;
        }
        if step <= Step::Drain {
            self.drain(say).await?;
        }
        let rows = match step <= Step::Copy {
            true => Some(self.copy(say).await?),
            false => None,
        };
        let refused_for = match step <= Step::HandOver {
            true => Some(self.hand_over(say).await?),
            false => None,
        };
        if refused_for.is_none() {
            say("the merchant was moved before");
        }
        let hashes = store::api_key_hashes(&mut self.destination.control, id).await;
        Ok(Moved {
            rows,
            refused_for,
            api_key_hashes: hashes.map_err(|error| self.destination.failed(error))?,
        })
    }

    /// Adds to an error what it leaves the merchant's clients with.
    fn halted(&self, error: MoveError) -> MoveError {
        match self.until_then {
            // Undoing is refused there, too.
            Some(until_then) if !matches!(error, MoveError::HasGoneOn(_)) => {
                MoveError::Halted(Halted {
                    cause: Box::new(error),
                    until_then,
                })
            }
            _ => error,
        }
    }

    fn merchant(&self) -> &'a str {
        &self.order.merchant_id
    }

    /// What each of them says of the merchant.
    async fn standings(&mut self) -> Result<(Standing, Option<Standing>), MoveError> {
        let id = self.merchant();
        let here = store::find(&mut self.source.control, id).await;
        let here = here.map_err(|error| self.source.failed(error))?;
        let here = here.ok_or_else(|| MoveError::UnknownMerchant(id.to_owned()))?;
        let there = store::find(&mut self.destination.control, id).await;
        let there = there.map_err(|error| self.destination.failed(error))?;
        Ok((here, there))
    }

    async fn announce(&mut self, say: &(dyn Fn(&str) + Sync)) -> Result<(), MoveError> {
        let announced = Change::Announce {
            to: self.order.to_cell,
            move_id: Uuid::now_v7(),
        };
        let id = self.merchant();
        change(&mut self.source, id, announced).await?;
        self.until_then = Some(WRITES_REFUSED);
        say("the merchant leaves: its writes are answered 503, its reads go on");
        failpoint!("move-announced");
        Ok(())
    }

    /// Refuses new claims, and waits until none is at work.
    async fn drain(&mut self, say: &(dyn Fn(&str) + Sync)) -> Result<(), MoveError> {
        let id = self.merchant();
        let moving_for = store::moving_for(&mut self.source.control, id).await;
        let moving_for = moving_for.map_err(|error| self.source.failed(error))?;
        sleep(SEEN_BY_ALL_NODES.saturating_sub(moving_for)).await;
        change(&mut self.source, id, Change::RefuseClaims).await?;
        failpoint!("move-claims-refused");
        let begun = Instant::now();
        loop {
            let keys = store::count_unsettled(&mut self.source.control, id).await;
            let keys = keys.map_err(|error| self.source.failed(error))?;
            if keys == 0 {
                say("nothing is at work any more");
                return Ok(());
            }
            if begun.elapsed() >= self.order.wait {
                self.reopen().await?;
                return Err(MoveError::StillAtWork {
                    merchant: id.to_owned(),
                    keys,
                    wait: self.order.wait,
                });
            }
            sleep(COUNTED_EVERY).await;
        }
    }

    async fn copy(
        &mut self,
        say: &(dyn Fn(&str) + Sync),
    ) -> Result<BTreeMap<&'static str, i64>, MoveError> {
        let id = self.merchant();
        change(&mut self.source, id, Change::RefuseWrites).await?;
        say("every write of the merchant is refused, and its rows are copied");
        failpoint!("move-writes-refused");
        let (source, _) = self.standings().await?;
        let row = store::merchant_row(&mut self.source.control, id).await;
        // A state has its move's ID (`merchants_move`).
        let move_id = source.move_id.unwrap_or_default();
        let arrive = Change::Arrive {
            row: &row.map_err(|error| self.source.failed(error))?,
            from: self.order.from_cell,
            move_id,
        };
        change(&mut self.destination, id, arrive).await?;
        failpoint!("move-arriving");
        let rows = copy::copy(&self.source, &self.destination, id, move_id, say).await?;
        failpoint!("move-copied");
        Ok(rows)
    }

    /// Returns how long the merchant's writes were refused.
    async fn hand_over(&mut self, say: &(dyn Fn(&str) + Sync)) -> Result<Duration, MoveError> {
        let id = self.merchant();
        // Also where an earlier run has done it: its commit is then on this database's standby, too, before the other cell serves.
        change(&mut self.source, id, Change::Leave).await?;
        self.until_then = Some(ALL_REFUSED);
        failpoint!("move-left");
        change(&mut self.destination, id, Change::Serve).await?;
        self.until_then = None;
        let moving_for = store::moving_for(&mut self.source.control, id).await;
        let moving_for = moving_for.map_err(|error| self.source.failed(error))?;
        say("the destination serves the merchant");
        failpoint!("move-opened");
        Ok(moving_for)
    }

    /// Lets the source serve the merchant again.
    async fn reopen(&mut self) -> Result<(), MoveError> {
        let id = self.merchant();
        change(&mut self.source, id, Change::Serve).await?;
        self.until_then = None;
        Ok(())
    }

    /// Deletes what has arrived at the destination, and the merchant with it.
    async fn discard(&mut self, copy: &Standing) -> Result<(), MoveError> {
        let id = self.merchant();
        let mut session = self.destination.session().await?;
        let move_id = copy.move_id.unwrap_or_default();
        copy::begin_replacing(&self.destination, &mut session, id, move_id).await?;
        let deleted = async {
            copy::delete_all(&mut session, id).await?;
            copy::commit(&mut session).await
        };
        deleted
            .await
            .map_err(|error| self.destination.failed(error))?;
        failpoint!("undo-deleted");
        change(&mut self.destination, id, Change::Forget).await
    }
}
