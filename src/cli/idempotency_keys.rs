//! `payonce idempotency-keys`: the engine's records, for operators and their scripts.

use anyhow::Context;
use clap::Subcommand;
use clap::builder::RangedU64ValueParser;
use serde::Serialize;

use super::examples;
use super::output::{or_dash, print_json, print_table, time};
use crate::config::DatabaseArgs;
use crate::idempotency::records::{Inspector, KeyRecord, KeyState};
use crate::idempotency::{IdempotencyKey, InvalidKey, ScopedKey};

/// Number of digits of a fingerprint that are shown, as in the API.
const FINGERPRINT_DIGITS: usize = 16;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show one key's record
    #[command(after_help = examples::KEYS_SHOW)]
    Show {
        /// The merchant's ID.
        merchant: String,
        /// create_payment, capture_payment, cancel_payment or refund_payment.
        operation: String,
        /// The client's key, without quotes.
        #[arg(value_parser = |key: &str| -> Result<_, InvalidKey> { IdempotencyKey::new(key) })]
        key: IdempotencyKey,
        /// One JSON object instead of lines.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// List records, the last to expire first; with --stuck, the longest in PROCESSING first
    #[command(after_help = examples::KEYS_LIST)]
    List {
        /// Only records in this state.
        #[arg(long, value_parser = ["PROCESSING", "COMPLETED", "FAILED"], ignore_case = true)]
        state: Option<String>,
        /// Only records in PROCESSING whose lease has expired.
        #[arg(long, conflicts_with = "state")]
        stuck: bool,
        /// Maximum number of records to list.
        #[arg(long, default_value_t = 100)]
        #[arg(value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000))]
        limit: u32,
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
            Self::Show {
                merchant,
                operation,
                key,
                json,
                database,
            } => show(&database, &ScopedKey::new(merchant, operation, key), json).await,
            Self::List {
                state,
                stuck,
                limit,
                json,
                database,
            } => {
                let inspector = Inspector::new(super::open(&database).await?);
                let state = state.and_then(|name| KeyState::from_name(&name.to_uppercase()));
                let records = match stuck {
                    true => inspector.list_stuck(limit).await?,
                    false => inspector.list(state, limit).await?,
                };
                print_records(&records, json)
            }
        }
    }
}

async fn show(database: &DatabaseArgs, key: &ScopedKey, json: bool) -> anyhow::Result<()> {
    let inspector = Inspector::new(super::open(database).await?);
    let found = inspector.find(key).await?;
    let record = found.with_context(|| format!("there is no record of {key}"))?;
    if json {
        return print_json(&Shown::from(&record));
    }
    let rows = [
        ["merchant", &record.scope.merchant_id],
        ["operation", &record.scope.operation],
        ["key", record.scope.key.as_str()],
        ["state", record.state.as_str()],
        ["fingerprint", fingerprint(&record)],
        ["attempts", &record.attempt.to_string()],
        ["lease until", &or_dash(record.lease_expires_at.map(time))],
        ["resource", &or_dash(record.resource_id.as_ref())],
        ["status", &or_dash(record.response_status)],
        ["created", &time(record.created_at)],
        ["completed", &or_dash(record.completed_at.map(time))],
        ["expires", &time(record.expires_at)],
    ]
    .map(|row| row.map(str::to_owned));
    print_table(["FIELD", "VALUE"], rows)
}

fn print_records(records: &[KeyRecord], json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&records.iter().map(Shown::from).collect::<Vec<_>>());
    }
    let rows = records.iter().map(|record| {
        [
            record.scope.merchant_id.clone(),
            record.scope.operation.clone(),
            record.scope.key.to_string(),
            record.state.as_str().to_owned(),
            record.attempt.to_string(),
            or_dash(record.response_status),
            or_dash(record.resource_id.as_ref()),
            time(record.created_at),
            time(record.expires_at),
        ]
    });
    let titles = [
        "MERCHANT",
        "OPERATION",
        "KEY",
        "STATE",
        "ATTEMPTS",
        "STATUS",
        "RESOURCE",
        "CREATED",
        "EXPIRES",
    ];
    print_table(titles, rows)
}

/// The record as the API shows it, with two fields for operators: its merchant and its lease.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    merchant_id: &'a str,
    operation: &'a str,
    key: &'a str,
    state: &'a str,
    fingerprint: &'a str,
    attempts: i32,
    lease_expires_at: Option<String>,
    response_status: Option<u16>,
    resource_id: Option<&'a str>,
    created_at: String,
    completed_at: Option<String>,
    expires_at: String,
}

impl<'a> From<&'a KeyRecord> for Shown<'a> {
    fn from(record: &'a KeyRecord) -> Self {
        Self {
            merchant_id: &record.scope.merchant_id,
            operation: &record.scope.operation,
            key: record.scope.key.as_str(),
            state: record.state.as_str(),
            fingerprint: fingerprint(record),
            attempts: record.attempt,
            lease_expires_at: record.lease_expires_at.map(time),
            response_status: record.response_status,
            resource_id: record.resource_id.as_deref(),
            created_at: time(record.created_at),
            completed_at: record.completed_at.map(time),
            expires_at: time(record.expires_at),
        }
    }
}

fn fingerprint(record: &KeyRecord) -> &str {
    record
        .fingerprint
        .get(..FINGERPRINT_DIGITS)
        .unwrap_or(&record.fingerprint)
}
