//! `payonce merchants`.

use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::examples;
use super::output::{print_json, print_table, time};
use crate::config::DatabaseArgs;
use crate::merchants::{Merchant, Merchants};

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
            Self::Create { id, name, database } => create(&database, &id, name.as_deref()).await,
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
}

impl<'a> From<&'a Merchant> for Listed<'a> {
    fn from(merchant: &'a Merchant) -> Self {
        Self {
            merchant_id: &merchant.id,
            name: &merchant.name,
            created_at: time(merchant.created_at),
            stripe_account: merchant.stripe_account.as_deref(),
        }
    }
}

async fn create(database: &DatabaseArgs, id: &str, name: Option<&str>) -> anyhow::Result<()> {
    let merchants = Merchants::new(super::open(database).await?);
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
            merchant.stripe_account.unwrap_or_else(|| "-".to_owned()),
            merchant.name,
        ]
    });
    print_table(["MERCHANT", "CREATED", "STRIPE ACCOUNT", "NAME"], rows)
}
