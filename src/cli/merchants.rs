//! `payonce merchants`.

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::output::{or_dash, print_json, print_table, time};
use super::{examples, merchants_move};
use crate::config::{CellArgs, DatabaseArgs};
use crate::merchants::{Cell, Merchant, Merchants, Move};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a merchant and its first API key, which is shown only here
    #[command(after_help = examples::MERCHANTS_CREATE)]
    Create {
        /// [A-Za-z0-9_.-]{1,64}, but not . or ..; it never changes.
        id: String,
        /// A name for people, up to 200 characters [default: the ID].
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        cell: CellArgs,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Change a merchant; prints it as one JSON line
    #[command(after_help = examples::MERCHANTS_SET)]
    Set {
        /// The merchant's ID.
        id: String,
        /// The merchant's own account at Stripe, sent as Stripe-Account for new payments; empty for none.
        #[arg(long, value_name = "ACCT")]
        stripe_account: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Move a merchant to another cell; run it again if it died
    #[command(after_help = examples::MERCHANTS_MOVE)]
    Move(Box<merchants_move::MoveArgs>),
    /// List all merchants
    #[command(after_help = examples::MERCHANTS_LIST)]
    List {
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

impl Command {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create {
                id,
                name,
                cell,
                database,
            } => create(&database, cell.cell, &id, name.as_deref()).await,
            Self::Move(args) => merchants_move::run(&args).await,
            Self::Set {
                id,
                stripe_account,
                database,
            } => set(&database, &id, &stripe_account).await,
            Self::List { json, database } => list(&database, json).await,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    merchant_id: &'a str,
    api_key: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    merchant_id: &'a str,
    name: &'a str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stripe_account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moving: Option<ListedMove>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedMove {
    state: &'static str,
    cell: Option<u16>,
    since: String,
}

impl From<Move> for ListedMove {
    fn from(moving: Move) -> Self {
        Self {
            state: moving.state.as_str(),
            cell: moving.cell.map(Cell::number),
            since: time(moving.since),
        }
    }
}

impl<'a> From<&'a Merchant> for Listed<'a> {
    fn from(merchant: &'a Merchant) -> Self {
        Self {
            merchant_id: &merchant.id,
            name: &merchant.name,
            created_at: time(merchant.created_at),
            stripe_account: merchant.stripe_account.as_deref(),
            moving: merchant.moving.map(ListedMove::from),
        }
    }
}

async fn create(
    database: &DatabaseArgs,
    cell: Option<Cell>,
    id: &str,
    name: Option<&str>,
) -> anyhow::Result<()> {
    let merchants = Merchants::new(super::open(database).await?).in_cell(cell);
    let created = merchants.create(id, name.unwrap_or(id)).await?;
    print_json(&Created {
        merchant_id: &created.merchant_id,
        api_key: created.api_key.expose_secret(),
    })
}

async fn set(database: &DatabaseArgs, id: &str, stripe_account: &str) -> anyhow::Result<()> {
    let merchants = Merchants::new(super::open(database).await?);
    let account = (!stripe_account.is_empty()).then_some(stripe_account);
    let merchant = merchants.set_stripe_account(id, account).await?;
    print_json(&Listed::from(&merchant))
}

async fn list(database: &DatabaseArgs, json: bool) -> anyhow::Result<()> {
    let merchants = Merchants::new(super::open(database).await?).list().await?;
    if json {
        return print_json(&merchants.iter().map(Listed::from).collect::<Vec<_>>());
    }
    let rows = merchants.into_iter().map(|merchant| {
        [
            merchant.id,
            time(merchant.created_at),
            or_dash(merchant.stripe_account),
            merchant
                .moving
                .map_or_else(|| "is served here".to_owned(), |moving| moving.describe()),
            merchant.name,
        ]
    });
    print_table(
        ["MERCHANT", "CREATED", "STRIPE ACCOUNT", "STANDING", "NAME"],
        rows,
    )
}
