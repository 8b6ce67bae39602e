//! A merchant's standing: whether its requests are served by this database, or it is moving, or has moved, to another cell.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::cell::Cell;
use crate::database::has_sqlstate;

/// How far a move is, as this database sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum MoveState {
    /// It leaves: no new claims, and what is under way ends.
    Leaving,
    /// Its rows are copied: no writes.
    Copying,
    /// The other cell serves it, or is about to.
    Moved,
    /// Its rows come from another cell. It is not served here yet.
    Arriving,
}

impl MoveState {
    /// The value in the database.
    pub fn as_str(self) -> &'static str {
        self.into_str()
    }
}

/// A move of a merchant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// How far it is.
    pub state: MoveState,
    /// The other cell; `None` if the merchant comes from one without a number.
    pub cell: Option<Cell>,
    /// When it began, by that database's clock.
    pub since: DateTime<Utc>,
}

impl Move {
    /// Returns true if this database does not serve such a request. Reads go on until the other cell serves the merchant.
    pub fn refuses(&self, is_read: bool) -> bool {
        match self.state {
            MoveState::Leaving | MoveState::Copying => !is_read,
            MoveState::Moved | MoveState::Arriving => true,
        }
    }

    /// What an operator or a client is told of it, without the merchant's name.
    pub fn describe(&self) -> String {
        let cell = self
            .cell
            .map_or_else(|| "another cell".to_owned(), |cell| format!("cell {cell}"));
        match self.state {
            MoveState::Leaving | MoveState::Copying => format!("is being moved to {cell}"),
            MoveState::Moved => format!("is served by {cell}"),
            MoveState::Arriving => format!("is being moved here from {cell}"),
        }
    }

    /// Reads the columns of a merchant. Returns `None` if the merchant is served here.
    pub(crate) fn from_columns(
        state: Option<String>,
        cell: Option<i16>,
        since: Option<DateTime<Utc>>,
    ) -> sqlx::Result<Option<Self>> {
        let (Some(state), Some(since)) = (state, since) else {
            return Ok(None);
        };
        let unknown = |_| sqlx::Error::decode(format!("{state} is not a state of a move"));
        Ok(Some(Self {
            state: state.parse().map_err(unknown)?,
            cell: cell
                .map(Cell::from_column)
                .transpose()
                .map_err(sqlx::Error::decode)?,
            since,
        }))
    }
}

/// The merchant of an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMerchant {
    /// Its ID.
    pub id: Arc<str>,
    /// Its move to another cell, or from one; `None` where it is served here.
    pub moving: Option<Move>,
}

/// What the triggers of a move raise (migration 9).
const REFUSED_BY_A_MOVE: &str = "40M01";

/// Returns true if the database refused a write because its merchant is being moved, or was moved, to another cell. Nothing of the
/// transaction was stored.
pub fn is_refused_by_a_move(error: &sqlx::Error) -> bool {
    has_sqlstate(error, &[REFUSED_BY_A_MOVE])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_on_until_the_other_cell_serves() {
        let refuses = |state, is_read| {
            let (cell, since) = (Cell::new(2).ok(), DateTime::<Utc>::MIN_UTC);
            Move { state, cell, since }.refuses(is_read)
        };
        for state in [MoveState::Leaving, MoveState::Copying] {
            assert!(refuses(state, false) && !refuses(state, true), "{state:?}");
        }
        for state in [MoveState::Moved, MoveState::Arriving] {
            assert!(refuses(state, false) && refuses(state, true), "{state:?}");
        }
    }

    #[test]
    fn a_state_has_one_name() {
        for state in [
            MoveState::Leaving,
            MoveState::Copying,
            MoveState::Moved,
            MoveState::Arriving,
        ] {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        let since = Some(DateTime::<Utc>::MIN_UTC);
        assert!(Move::from_columns(Some("GONE".to_owned()), Some(1), since).is_err());
    }
}
