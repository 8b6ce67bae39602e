//! The copy: all rows of the merchant in one snapshot of the source, into one transaction of the destination, checked before that
//! commits.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::error::MoveError;
use super::side::Side;
use super::store;
use super::tables::{OF_THE_MOVE, TABLES, copied};
use crate::database::Bounded;

/// For how long one step over a merchant's rows of a table may take: deleting old ones, adding them up, or looking
/// for who signed them.
pub(super) const LONGEST_STEP: Duration = Duration::from_secs(60 * 60);

/// For how long no row may come, or be taken.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// The settings of both transactions. Texts of rows are compared, so both sides write values in the same way; and a transaction stands
/// still while the other one works.
const SETTINGS: &str = "set local statement_timeout = '1h'; \
     set local lock_timeout = '10s'; \
     set local idle_in_transaction_session_timeout = '1h'; \
     set local timezone = 'UTC'; \
     set local datestyle = 'ISO, YMD'; \
     set local intervalstyle = 'postgres'; \
     set local bytea_output = 'hex'; \
     set local extra_float_digits = 1";

/// Rows of a table, and what they add up to in whatever order they come.
#[derive(Debug, PartialEq, Eq)]
struct Sum {
    rows: i64,
    checksum: String,
}

/// Copies a merchant's rows. Returns how many rows of each table the destination has now.
pub(super) async fn copy(
    source: &Side,
    destination: &Side,
    merchant_id: &str,
    move_id: Uuid,
    say: &(dyn Fn(&str) + Sync),
) -> Result<BTreeMap<&'static str, i64>, MoveError> {
    let mut from = source.session().await?;
    let mut to = destination.session().await?;
    let begun = begin(
        &mut from,
        "begin isolation level repeatable read, read only",
        merchant_id,
    );
    begun.await.map_err(|error| source.failed(error))?;
    begin_replacing(destination, &mut to, merchant_id, move_id).await?;

    let old = delete_all(&mut to, merchant_id).await;
    if old.map_err(|error| destination.failed(error))? > 0 {
        say("an older copy in the destination was replaced");
    }
    for table in copied() {
        let rows = pipe(source, &mut from, destination, &mut to, table, merchant_id).await?;
        say(&format!("{table}: {rows} rows copied"));
    }
    let mut counts = BTreeMap::new();
    for table in TABLES {
        let here = sum(&mut from, table.name, merchant_id).await;
        let here = here.map_err(|error| source.failed(error))?;
        let there = sum(&mut to, table.name, merchant_id).await;
        let there = there.map_err(|error| destination.failed(error))?;
        if here != there {
            return Err(MoveError::Different { table: table.name });
        }
        if table.is_copied {
            counts.insert(table.name, there.rows);
        }
    }
    say("both sides agree");
    failpoint!("move-copied-before-commit");
    let committed = commit(&mut to).await;
    committed.map_err(|error| destination.failed(error))?;
    Ok(counts)
}

/// Begins the transaction that replaces or deletes a copy. Its session is not the one that holds the lock of whoever moves merchants: if
/// that was lost, another mover may have opened this copy already.
pub(super) async fn begin_replacing(
    destination: &Side,
    to: &mut PgConnection,
    merchant_id: &str,
    move_id: Uuid,
) -> Result<(), MoveError> {
    let begun = begin(to, "begin", merchant_id).await;
    begun.map_err(|error| destination.failed(error))?;
    let held = store::hold_arriving(to, merchant_id, move_id).await;
    match held.map_err(|error| destination.failed(error))? {
        true => Ok(()),
        false => Err(MoveError::refused(
            merchant_id,
            "no longer arrives at the destination by this move: another command has gone on with it meanwhile",
        )),
    }
}

/// Deletes all rows of a merchant but its own, in a transaction of the caller's.
pub(super) async fn delete_all(to: &mut PgConnection, merchant_id: &str) -> sqlx::Result<u64> {
    let mut deleted = 0;
    for table in TABLES
        .iter()
        .rev()
        .filter(|table| table.name != "merchants")
    {
        let sql = format!("delete from {} where merchant_id = $1", table.name);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(merchant_id.to_owned());
        deleted += query
            .execute(&mut *to)
            .within(LONGEST_STEP)
            .await?
            .rows_affected();
    }
    Ok(deleted)
}

/// Begins a transaction for work that takes long, and whose own writes are let through.
pub(super) async fn begin(
    connection: &mut PgConnection,
    begin: &str,
    merchant_id: &str,
) -> sqlx::Result<()> {
    run(connection, begin, LONGEST_SILENCE).await?;
    store::begin_change(connection, merchant_id, LONGEST_SILENCE).await?;
    run(connection, SETTINGS, LONGEST_SILENCE).await
}

pub(super) async fn commit(connection: &mut PgConnection) -> sqlx::Result<()> {
    run(connection, "commit", LONGEST_STEP).await
}

/// Hands a table's rows from one side to the other as they come.
async fn pipe(
    source: &Side,
    from: &mut PgConnection,
    destination: &Side,
    to: &mut PgConnection,
    table: &str,
    merchant_id: &str,
) -> Result<u64, MoveError> {
    // The columns' order may differ where one schema was made by older migrations.
    let columns = store::columns(to, table).await;
    let columns = columns
        .map_err(|error| destination.failed(error))?
        .join(", ");
    let merchant = store::literal(from, merchant_id).await;
    let merchant = merchant.map_err(|error| source.failed(error))?;
    let read = format!(
        "copy (select {columns} from {table} where merchant_id = {merchant}) to stdout (format binary)"
    );
    let write = format!("copy {table} ({columns}) from stdin (format binary)");
    let rows = from.copy_out_raw(&read).within(LONGEST_SILENCE).await;
    let mut rows = rows.map_err(|error| source.failed(error))?;
    let sink = to.copy_in_raw(&write).within(LONGEST_SILENCE).await;
    let mut sink = sink.map_err(|error| destination.failed(error))?;
    loop {
        let chunk = async { rows.next().await.transpose() };
        let chunk = chunk.within(LONGEST_SILENCE).await;
        let Some(chunk) = chunk.map_err(|error| source.failed(error))? else {
            break;
        };
        let sent = async { sink.send(chunk).await.map(drop) };
        let sent = sent.within(LONGEST_SILENCE).await;
        sent.map_err(|error| destination.failed(error))?;
    }
    let finished = sink.finish().within(LONGEST_STEP).await;
    finished.map_err(|error| destination.failed(error))
}

/// Adds up a table's rows of a merchant.
async fn sum(connection: &mut PgConnection, table: &str, merchant_id: &str) -> sqlx::Result<Sum> {
    let mut columns = store::columns(connection, table).await?;
    columns.retain(|column| !OF_THE_MOVE.contains(&column.as_str()));
    columns.sort_unstable();
    let columns = columns.join(", ");
    let sql = format!(
        "select count(*), coalesce(sum(hashtextextended(r::text, 0)::numeric), 0)::text \
         from (select {columns} from {table} where merchant_id = $1) as r"
    );
    let query = sqlx::query_as(AssertSqlSafe(sql)).bind(merchant_id.to_owned());
    let (rows, checksum) = query.fetch_one(connection).within(LONGEST_STEP).await?;
    Ok(Sum { rows, checksum })
}

async fn run(connection: &mut PgConnection, sql: &str, limit: Duration) -> sqlx::Result<()> {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    sql.execute(connection).within(limit).await.map(drop)
}
