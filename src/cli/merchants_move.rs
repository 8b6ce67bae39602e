//! `payonce merchants move`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

use super::output::print_json;
use crate::config::{CellArgs, DatabaseArgs, positive_duration, secret};
use crate::database::DatabaseSettings;
use crate::merchants::Cell;
use crate::merchants::moves::{self, MoveOrder, Moved, Undone};

/// Each database has its sessions outside of a pool.
const MAX_CONNECTIONS: u32 = 1;

/// A move of a merchant to another cell.
#[derive(Debug, clap::Args)]
pub(super) struct MoveArgs {
    /// The merchant's ID.
    id: String,
    /// Number of the cell that it moves to.
    #[arg(long, value_name = "NUMBER")]
    to_cell: Cell,
    /// That cell's database, as the role that owns its tables. DATABASE_URL is the database that the merchant leaves.
    #[arg(
        long,
        env = "PAYONCE_MOVE_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    #[arg(value_parser = secret)]
    to_database_url: SecretString,
    /// How long requests that are under way may take to end. If they take longer, the merchant stays where it is.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = positive_duration)]
    wait: Duration,
    /// Undo a move that has not come to its end: the cell that the merchant was leaving serves it again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    cell: CellArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

impl MoveArgs {
    fn order(&self) -> MoveOrder {
        MoveOrder {
            merchant_id: self.id.clone(),
            from_cell: self.cell.cell,
            to_cell: self.to_cell,
            source: self.database.settings(MAX_CONNECTIONS),
            destination: DatabaseSettings {
                url: self.to_database_url.clone(),
                ..self.database.settings(MAX_CONNECTIONS)
            },
            wait: self.wait,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    merchant_id: &'a str,
    cell: u16,
    rows: Option<BTreeMap<&'static str, i64>>,
    writes_refused_ms: Option<u128>,
    haproxy_map: Vec<String>,
}

/// Tells each step on standard error, and the result as one JSON line on standard output.
pub(super) async fn run(args: &MoveArgs) -> anyhow::Result<()> {
    let order = args.order();
    let say = |step: &str| drop(writeln!(io::stderr(), "{}: {step}", order.merchant_id));
    if args.undo {
        if moves::undo(&order, &say).await? == Undone::NothingToUndo {
            say("the merchant is not being moved: there is nothing to undo");
        }
        return Ok(());
    }
    let Moved {
        rows,
        refused_for,
        api_key_hashes,
    } = moves::run(&order, &say).await?;
    let cell = order.to_cell;
    let of_key = |hash: String| format!("{hash} cell{cell}");
    print_json(&Report {
        merchant_id: &order.merchant_id,
        cell: cell.number(),
        rows,
        writes_refused_ms: refused_for.map(|duration| duration.as_millis()),
        haproxy_map: api_key_hashes.into_iter().map(of_key).collect(),
    })
}
