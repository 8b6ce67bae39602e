//! What to move, and the result.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::database::DatabaseSettings;
use crate::merchants::Cell;

/// A merchant that is to be moved from one cell to another.
#[derive(Clone, Debug)]
pub struct MoveOrder {
    /// Its ID.
    pub merchant_id: String,
    /// The number of the cell that it comes from, if that has one.
    pub from_cell: Option<Cell>,
    /// The number of the cell that it goes to.
    pub to_cell: Cell,
    /// The database that it comes from.
    pub source: DatabaseSettings,
    /// The database that it goes to.
    pub destination: DatabaseSettings,
    /// How long keys that are at work may take to end.
    pub wait: Duration,
}

/// A merchant that has moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How many rows of each table were copied and checked; `None` if an earlier run did that.
    pub rows: Option<BTreeMap<&'static str, i64>>,
    /// From the beginning of the move until the other cell served the merchant, by the source's clock; `None` if an earlier run ended
    /// the move.
    pub refused_for: Option<Duration>,
    /// SHA-256 of each of its API keys that is not revoked, in hexadecimal digits: what a proxy knows them by.
    pub api_key_hashes: Vec<String>,
}

/// What undoing a move did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// The source serves the merchant again.
    Reopened,
    /// The source serves the merchant, and a copy that an earlier undoing had left at the destination is deleted.
    Discarded,
    /// The merchant was not being moved.
    NothingToUndo,
}
