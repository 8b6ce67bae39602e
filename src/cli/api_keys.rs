//! `payonce api-keys`. A merchant's key is rotated by creating another one, using it, and revoking the first.

use anyhow::bail;
use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::examples;
use super::output::{or_dash, print_json, print_line, print_table, time};
use crate::config::{CellArgs, DatabaseArgs};
use crate::merchants::{ApiKeyRecord, Cell, Merchants, Revocation};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a further API key, which is shown only here
    #[command(after_help = examples::API_KEYS_CREATE)]
    Create {
        /// The merchant's ID.
        merchant: String,
        #[command(flatten)]
        cell: CellArgs,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// List a merchant's API keys, without the keys themselves
    #[command(after_help = examples::API_KEYS_LIST)]
    List {
        /// The merchant's ID.
        merchant: String,
        /// One JSON array instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Revoke an API key; every node refuses it within 5 s
    #[command(after_help = examples::API_KEYS_REVOKE)]
    Revoke {
        /// The key's ID: key_…
        api_key_id: String,
        #[command(flatten)]
        database: DatabaseArgs,
    },
}

impl Command {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Create {
                merchant,
                cell,
                database,
            } => create(&database, cell.cell, &merchant).await,
            Self::List {
                merchant,
                json,
                database,
            } => list(&database, &merchant, json).await,
            Self::Revoke {
                api_key_id,
                database,
            } => revoke(&database, &api_key_id).await,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    merchant_id: &'a str,
    api_key_id: &'a str,
    api_key: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    merchant_id: &'a str,
    api_key_id: &'a str,
    created_at: String,
    revoked_at: Option<String>,
}

impl<'a> From<&'a ApiKeyRecord> for Listed<'a> {
    fn from(key: &'a ApiKeyRecord) -> Self {
        Self {
            merchant_id: &key.merchant_id,
            api_key_id: &key.id,
            created_at: time(key.created_at),
            revoked_at: key.revoked_at.map(time),
        }
    }
}

async fn create(database: &DatabaseArgs, cell: Option<Cell>, merchant: &str) -> anyhow::Result<()> {
    let created = Merchants::new(super::open(database).await?)
        .in_cell(cell)
        .create_api_key(merchant)
        .await?;
    print_json(&Created {
        merchant_id: &created.merchant_id,
        api_key_id: &created.api_key_id,
        api_key: created.api_key.expose_secret(),
    })
}

async fn list(database: &DatabaseArgs, merchant: &str, json: bool) -> anyhow::Result<()> {
    let keys = Merchants::new(super::open(database).await?)
        .list_api_keys(merchant)
        .await?;
    if json {
        return print_json(&keys.iter().map(Listed::from).collect::<Vec<_>>());
    }
    let rows = keys.into_iter().map(|key| {
        [
            key.id,
            time(key.created_at),
            or_dash(key.revoked_at.map(time)),
        ]
    });
    print_table(["API KEY", "CREATED", "REVOKED"], rows)
}

async fn revoke(database: &DatabaseArgs, api_key_id: &str) -> anyhow::Result<()> {
    match Merchants::new(super::open(database).await?)
        .revoke_api_key(api_key_id)
        .await?
    {
        Revocation::Revoked => print_line(&format!("{api_key_id} is revoked")),
        Revocation::AlreadyRevoked => print_line(&format!("{api_key_id} was revoked before")),
        Revocation::NotFound => bail!("there is no API key {api_key_id}"),
    }
}
