//! The cell, and moves of merchants that have not come to their end.

use std::time::Duration;

use sqlx::PgConnection;

use super::Finding;
use super::store::{self, SeenMove};
use super::upkeep::is_undefined;
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
    match store::moves(connection).await {
        // Another check reports the older schema.
        Err(error) if is_undefined(&error) => Finding::ok(NAME, "there are none yet"),
        seen => Finding::or_unseen(NAME, seen.map(judge)),
    }
}

fn judge(moves: Vec<SeenMove>) -> Finding {
    const NAME: &str = "moves";
    let (gone, unfinished): (Vec<SeenMove>, Vec<SeenMove>) = moves
        .into_iter()
        .partition(|it| it.moving.state == MoveState::Moved);
    if unfinished.is_empty() {
        return Finding::ok(
            NAME,
            format!(
                "every merchant is served here, or has moved{}",
                recent(&gone)
            ),
        );
    }
    let named = unfinished.iter().take(MOST_NAMED);
    let (found, advice): (Vec<String>, Vec<String>) =
        named.map(|it| (found(it), advice(it))).unzip();
    let found = found.join("; ") + &more(unfinished.len());
    Finding::warning(NAME, found, advice.join("; "))
}

/// Those that another cell serves since a short time ago. Whether it does is known there only.
fn recent(gone: &[SeenMove]) -> String {
    if gone.is_empty() {
        return String::new();
    }
    let named = gone.iter().rev().take(MOST_NAMED);
    let named: Vec<String> = named.map(found).collect();
    let more = more(gone.len());
    format!(
        ": {}{more}; `payonce doctor` there says whether it does yet",
        named.join("; ")
    )
}

fn more(all: usize) -> String {
    match all.saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    }
}

fn found(unfinished: &SeenMove) -> String {
    let age = humantime::format_duration(Duration::from_secs(unfinished.age.as_secs()));
    let merchant = &unfinished.merchant_id;
    format!(
        "{merchant} {} (the move began {age} ago)",
        unfinished.moving.describe()
    )
}

fn advice(unfinished: &SeenMove) -> String {
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
