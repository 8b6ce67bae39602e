//! Where a move begins or goes on, by what the two databases say of the merchant.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::error::MoveError;
use crate::merchants::{Cell, MoveState};

/// What a database says of the merchant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// `None` where the merchant is served.
    pub(super) state: Option<MoveState>,
    /// The other cell.
    pub(super) cell: Option<Cell>,
    /// The move that it is part of.
    pub(super) move_id: Option<Uuid>,
    /// When the merchant was created. It goes with the merchant, so another merchant of this ID has another time.
    pub(super) created_at: DateTime<Utc>,
}

impl Standing {
    fn is_same_merchant(&self, other: &Self) -> bool {
        self.created_at == other.created_at
    }
}

/// The steps of a move, in their order. A move that died goes on with the step that it died in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The source says that the merchant leaves.
    Announce,
    /// No new claims, and what is under way ends.
    Drain,
    /// No writes; the rows are copied.
    Copy,
    /// The source no longer serves the merchant, and then the destination does.
    HandOver,
    /// Nothing is left to do.
    Done,
}

/// Finds the step to begin with.
pub(super) fn first_step(
    merchant: &str,
    to: Cell,
    source: &Standing,
    destination: Option<&Standing>,
) -> Result<Step, MoveError> {
    let refuse = |why: String| Err(MoveError::refused(merchant, why));
    let Some(state) = source.state else {
        return refuse_served(merchant, source, destination).map(|()| Step::Announce);
    };
    if state == MoveState::Arriving {
        return refuse("is still arriving at the source: end that move first".to_owned());
    }
    if source.cell != Some(to) {
        let cell = source.cell.map_or(0, Cell::number);
        return refuse(if state == MoveState::Moved {
            format!("has moved to cell {cell}, whose database is to be the source")
        } else {
            format!(
                "is being moved to cell {cell}: end that move, or undo it with --undo --to-cell {cell}, first"
            )
        });
    }
    match (state, destination.map(|there| there.state)) {
        (MoveState::Leaving, _) => {
            refuse_served(merchant, source, destination).map(|()| Step::Drain)
        }
        (MoveState::Copying, _) => {
            refuse_served(merchant, source, destination).map(|()| Step::Copy)
        }
        (_, Some(Some(MoveState::Arriving))) if is_its_copy(source, destination) => {
            Ok(Step::HandOver)
        }
        (_, Some(Some(MoveState::Arriving))) => refuse(format!(
            "has moved to cell {to}, and what arrives in the database of --to-database-url is another copy: give the URL of cell {to}"
        )),
        (_, Some(None)) => Ok(Step::Done),
        (_, Some(Some(_))) => refuse(format!("has moved to cell {to}, and on from there")),
        (_, None) => refuse(format!(
            "has moved to cell {to}, and is not in the database of --to-database-url: give the URL of cell {to}"
        )),
    }
}

/// A merchant is never served by two cells.
fn refuse_served(
    merchant: &str,
    source: &Standing,
    destination: Option<&Standing>,
) -> Result<(), MoveError> {
    if has_gone_on(source, destination) {
        return Err(MoveError::HasGoneOn(merchant.to_owned()));
    }
    match destination.map(|there| there.state) {
        None | Some(Some(MoveState::Moved | MoveState::Arriving)) => Ok(()),
        Some(None) => Err(MoveError::refused(
            merchant,
            "exists in the destination's database, and is served there",
        )),
        Some(Some(_)) => Err(MoveError::refused(
            merchant,
            "exists in the destination's database, and is about to leave it",
        )),
    }
}

/// Returns true if what arrives at the destination is the copy of the source's own move.
pub(super) fn is_its_copy(source: &Standing, destination: Option<&Standing>) -> bool {
    destination.is_some_and(|there| {
        there.state == Some(MoveState::Arriving) && there.move_id == source.move_id
    })
}

/// Returns true if the destination has served the merchant since the source's move began. So the source has lost the end of that move: a
/// standby took over that did not have it.
fn has_gone_on(source: &Standing, destination: Option<&Standing>) -> bool {
    let same = destination.filter(|there| there.is_same_merchant(source));
    let Some((_, there)) = source.state.zip(same) else {
        return false;
    };
    match there.state {
        None | Some(MoveState::Leaving | MoveState::Copying) => true,
        // It came from there earlier, or it has moved on from there. IDs of moves are in the order of time.
        Some(MoveState::Moved) => there.move_id > source.move_id,
        Some(MoveState::Arriving) => false,
    }
}

/// What undoing a move has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    /// The source serves the merchant again.
    Reopen,
    /// The source serves the merchant. A copy of it is left at the destination.
    Discard,
    /// Nothing.
    Nothing,
}

/// Finds what undoing has to do. Refuses to undo a move that is not under way to this cell.
pub(super) fn what_to_undo(
    merchant: &str,
    to: Cell,
    source: &Standing,
    destination: Option<&Standing>,
) -> Result<Undo, MoveError> {
    let refuse = |why: String| Err(MoveError::refused(merchant, why));
    let same = destination.filter(|there| there.is_same_merchant(source));
    match source.state {
        None => match same.map(|there| there.state) {
            Some(Some(MoveState::Arriving)) => Ok(Undo::Discard),
            Some(None) => refuse("is served by both databases".to_owned()),
            _ => Ok(Undo::Nothing),
        },
        Some(MoveState::Leaving | MoveState::Copying) if source.cell == Some(to) => {
            match has_gone_on(source, destination) {
                true => Err(MoveError::HasGoneOn(merchant.to_owned())),
                false => Ok(Undo::Reopen),
            }
        }
        Some(MoveState::Leaving | MoveState::Copying) => {
            let cell = source.cell.map_or(0, Cell::number);
            refuse(format!(
                "is being moved to cell {cell}: undo that with --to-cell {cell} and its URL"
            ))
        }
        Some(MoveState::Moved) => refuse(
            "has moved already: end the move by the same command without --undo, then move the merchant back".to_owned(),
        ),
        Some(MoveState::Arriving) => refuse(
            "is arriving at this database: undo that with the other cell as the source".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAVING: Option<MoveState> = Some(MoveState::Leaving);
    const COPYING: Option<MoveState> = Some(MoveState::Copying);
    const MOVED: Option<MoveState> = Some(MoveState::Moved);
    const ARRIVING: Option<MoveState> = Some(MoveState::Arriving);

    fn cell(number: u16) -> Cell {
        Cell::new(number).expect("a cell")
    }

    fn standing(state: Option<MoveState>, number: u16, id: u128) -> Standing {
        Standing {
            state,
            cell: state.map(|_| cell(number)),
            move_id: state.map(|_| Uuid::from_u128(id)),
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    /// To cell 2, in move 7 of both.
    fn step(source: Option<MoveState>, destination: Option<Option<MoveState>>) -> Option<Step> {
        let there = destination.map(|state| standing(state, 1, 7));
        first_step("acme", cell(2), &standing(source, 2, 7), there.as_ref()).ok()
    }

    #[test]
    fn a_move_goes_on_with_the_step_that_it_died_in() {
        for (source, first) in [
            (None, Step::Announce),
            (LEAVING, Step::Drain),
            (COPYING, Step::Copy),
        ] {
            for there in [None, Some(MOVED), Some(ARRIVING)] {
                assert_eq!(step(source, there), Some(first), "{source:?} {there:?}");
            }
            for there in [Some(None), Some(LEAVING), Some(COPYING)] {
                assert_eq!(step(source, there), None, "{source:?} {there:?}");
            }
        }
        assert_eq!(step(MOVED, Some(ARRIVING)), Some(Step::HandOver));
        assert_eq!(step(MOVED, Some(None)), Some(Step::Done));
        for there in [None, Some(MOVED), Some(LEAVING), Some(COPYING)] {
            assert_eq!(step(MOVED, there), None, "{there:?}");
        }
        for there in [None, Some(None), Some(MOVED), Some(ARRIVING)] {
            assert_eq!(step(ARRIVING, there), None, "{there:?}");
        }
    }

    #[test]
    fn another_moves_copy_is_not_opened() {
        let there = standing(ARRIVING, 1, 8);
        let refused = first_step("acme", cell(2), &standing(MOVED, 2, 7), Some(&there));
        assert!(refused.is_err());
    }

    #[test]
    fn a_move_to_another_cell_is_ended_or_undone_first() {
        for state in [LEAVING, COPYING, MOVED] {
            let source = standing(state, 3, 7);
            let refused = first_step("acme", cell(2), &source, None).expect_err("another cell");
            assert!(refused.to_string().contains("cell 3"), "{refused}");
        }
    }

    #[test]
    fn only_what_has_not_moved_is_undone() {
        let undo = |state| what_to_undo("acme", cell(2), &standing(state, 2, 7), None).ok();
        assert_eq!(undo(None), Some(Undo::Nothing));
        assert_eq!(undo(LEAVING), Some(Undo::Reopen));
        assert_eq!(undo(COPYING), Some(Undo::Reopen));
        assert_eq!(undo(MOVED), None);
        assert_eq!(undo(ARRIVING), None);
        assert!(what_to_undo("acme", cell(3), &standing(LEAVING, 2, 7), None).is_err());
    }

    /// The destination's merchant is the source's, and after that another one of the same ID.
    #[test]
    fn what_the_destination_has_served_is_not_undone() {
        let undo = |source, there: &Standing| {
            what_to_undo("acme", cell(2), &standing(source, 2, 7), Some(there)).ok()
        };
        for source in [LEAVING, COPYING] {
            for (state, move_id, undone) in [
                (None, 0, None),
                (LEAVING, 8, None),
                (COPYING, 8, None),
                (MOVED, 8, None),
                // It came from there before.
                (MOVED, 6, Some(Undo::Reopen)),
                (ARRIVING, 7, Some(Undo::Reopen)),
            ] {
                let mut there = standing(state, 1, move_id);
                assert_eq!(undo(source, &there), undone, "{source:?} {there:?}");
                let goes_on = first_step("acme", cell(2), &standing(source, 2, 7), Some(&there));
                assert_eq!(goes_on.is_ok(), undone.is_some(), "{source:?} {there:?}");
                there.created_at = DateTime::<Utc>::MAX_UTC;
                assert_eq!(undo(source, &there), Some(Undo::Reopen), "{there:?}");
            }
        }
    }

    #[test]
    fn a_copy_that_was_left_behind_is_discarded_by_its_merchant_only() {
        let undo =
            |there: &Standing| what_to_undo("acme", cell(2), &standing(None, 2, 7), Some(there));
        let mut there = standing(ARRIVING, 1, 7);
        assert_eq!(undo(&there).ok(), Some(Undo::Discard));
        assert_eq!(undo(&standing(MOVED, 1, 7)).ok(), Some(Undo::Nothing));
        assert!(undo(&standing(None, 1, 7)).is_err(), "both serve it");
        there.created_at = DateTime::<Utc>::MAX_UTC;
        assert_eq!(undo(&there).ok(), Some(Undo::Nothing));
    }
}
