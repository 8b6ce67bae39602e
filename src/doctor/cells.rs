//! The cell, and moves of merchants that have not come to their end.

use std::time::Duration;

use sqlx::PgConnection;

use super::upkeep::is_undefined;
use super::{Finding, store};
use crate::config::ServeArgs;
use crate::merchants::{Cell, MoveState};

/// Maximum number of merchants that a finding names.
const MOST_NAMED: usize = 3;

pub(super) fn cell(args: &ServeArgs) -> Finding {
    const NAME: &str = "cell";
    match args.cell.cell {
        Some(cell) => Finding::ok(
            NAME,
            format!("cell {cell}: new API keys begin with sk_{cell}_"),
        ),
        None => Finding::ok(NAME, "none (PAYONCE_CELL is not set)"),
    }
}

pub(super) async fn moves(connection: &mut PgConnection) -> Finding {
    const NAME: &str = "moves";
    match store::unfinished_moves(connection).await {
        // Another check reports the older schema.
        Err(error) if is_undefined(&error) => Finding::ok(NAME, "there are none yet"),
        seen => Finding::or_unseen(NAME, seen.map(|moves| judge(&moves))),
    }
}

fn judge(moves: &[store::UnfinishedMove]) -> Finding {
    const NAME: &str = "moves";
    if moves.is_empty() {
        return Finding::ok(NAME, "every merchant is served here, or has moved");
    }
    let named = moves.iter().take(MOST_NAMED);
    let (found, advice): (Vec<String>, Vec<String>) = named
        .map(|unfinished| (found(unfinished), advice(unfinished)))
        .unzip();
    let more = match moves.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Finding::warning(NAME, found.join("; ") + &more, advice.join("; "))
}

fn found(unfinished: &store::UnfinishedMove) -> String {
    let age = humantime::format_duration(Duration::from_secs(unfinished.age.as_secs()));
    let merchant = &unfinished.merchant_id;
    format!(
        "{merchant} {} (the move began {age} ago)",
        unfinished.moving.describe()
    )
}

fn advice(unfinished: &store::UnfinishedMove) -> String {
    let merchant = &unfinished.merchant_id;
    match (
        unfinished.moving.state,
        unfinished.moving.cell.map(Cell::number),
    ) {
        (MoveState::Arriving, Some(cell)) => format!(
            "if that is not at work, run `payonce merchants move {merchant}` again on the database of cell {cell}, with this one's URL"
        ),
        (MoveState::Arriving, None) => format!(
            "if that is not at work, run `payonce merchants move {merchant}` again on the database that it comes from"
        ),
        (_, cell) => {
            let cell = cell.unwrap_or_default();
            format!(
                "if that is not at work, run `payonce merchants move {merchant} --to-cell {cell}` again with that cell's URL, or with \
                 --undo"
            )
        }
    }
}
