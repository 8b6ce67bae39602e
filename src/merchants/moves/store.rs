//! The SQL of a move. Names of tables and columns are the catalog's or this program's, and what they are put into is not checked at
//! compile time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use super::plan::Standing;
use super::tables::OF_THE_MOVE;
use crate::database::Bounded;
use crate::merchants::{Cell, Move, MoveState};

/// The advisory lock of whoever moves merchants. Two moves in one database would each make the fence without the other's merchant.
const LOCK: i64 = 0x0070_6179_6d6f_7665;

/// Takes the lock for as long as the session lasts. Returns `false` if another session has it.
pub(super) async fn try_lock(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "is_ours!""#, LOCK)
        .fetch_one(connection)
        .bounded()
        .await
}

/// What no other database of any server has.
pub(super) async fn identity(
    connection: &mut PgConnection,
) -> sqlx::Result<(String, DateTime<Utc>)> {
    let row = sqlx::query!(
        r#"
        select
            current_database()::text as "name!",
            pg_postmaster_start_time() as "started_at!"
        "#,
    )
    .fetch_one(connection)
    .bounded()
    .await?;
    Ok((row.name, row.started_at))
}

pub(super) async fn is_citus(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"
        select exists (
            select
            from pg_extension
            where extname = 'citus'
        ) as "is_citus!"
        "#,
    )
    .fetch_one(connection)
    .bounded()
    .await
}

/// The versions of the migrations that were applied.
pub(super) async fn migrations(connection: &mut PgConnection) -> sqlx::Result<Vec<i64>> {
    // Not checked at compile time: the table is sqlx's own.
    sqlx::query_scalar("select version from _sqlx_migrations where success order by version")
        .fetch_all(connection)
        .bounded()
        .await
}

/// The first of these tables that our role does not own, and the role.
pub(super) async fn not_owned(
    connection: &mut PgConnection,
    tables: &[String],
) -> sqlx::Result<Option<(String, String)>> {
    let row = sqlx::query!(
        r#"
        select
            current_user::text as "role!",
            name as "table!"
        from unnest($1::text[]) as needed (name)
        join pg_class c on c.oid = to_regclass(name)
        where not pg_has_role(c.relowner, 'usage')
        order by name
        limit 1
        "#,
        tables,
    )
    .fetch_optional(connection)
    .bounded()
    .await?;
    Ok(row.map(|row| (row.role, row.table)))
}

/// Sees to it that the merchant goes on arriving by this move until the transaction ends: it writes what is there already, which locks the
/// row. Returns `false` if it no longer arrives.
pub(super) async fn hold_arriving(
    connection: &mut PgConnection,
    merchant_id: &str,
    move_id: Uuid,
) -> sqlx::Result<bool> {
    let held = sqlx::query!(
        r#"
        update merchants
        set move_state = 'ARRIVING'
        where merchant_id = $1
            and move_state = 'ARRIVING'
            and move_id = $2
        "#,
        merchant_id,
        move_id,
    )
    .execute(connection)
    .bounded()
    .await?;
    Ok(held.rows_affected() == 1)
}

/// What this database says of a merchant. Returns `None` if it is not here.
pub(super) async fn find(
    connection: &mut PgConnection,
    merchant_id: &str,
) -> sqlx::Result<Option<Standing>> {
    let row = sqlx::query!(
        r#"
        select
            move_state,
            move_cell,
            move_id,
            move_since,
            created_at
        from merchants
        where merchant_id = $1
        "#,
        merchant_id,
    )
    .fetch_optional(connection)
    .bounded()
    .await?;
    let standing = row.map(|row| {
        let moving = Move::from_columns(row.move_state, row.move_cell, row.move_since)?;
        Ok(Standing {
            state: moving.map(|moving| moving.state),
            cell: moving.and_then(|moving| moving.cell),
            move_id: row.move_id,
            created_at: row.created_at,
        })
    });
    standing.transpose()
}

/// The settings of a transaction that changes what is refused: it waits for a lock no longer than this, and its own writes of this
/// merchant are let through.
pub(super) async fn begin_change(
    connection: &mut PgConnection,
    merchant_id: &str,
    lock_wait: Duration,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        select
            set_config('lock_timeout', $1, true) as "lock_timeout!",
            set_config('payonce.moving', $2, true) as "moving!"
        "#,
        format!("{}ms", lock_wait.as_millis()),
        merchant_id,
    )
    .fetch_one(connection)
    .bounded()
    .await
    .map(drop)
}

/// A new move begins.
pub(super) async fn announce(
    connection: &mut PgConnection,
    merchant_id: &str,
    to: Cell,
    move_id: Uuid,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update merchants
        set move_state = 'LEAVING',
            move_cell = $2,
            move_id = $3,
            move_since = now()
        where merchant_id = $1
        "#,
        merchant_id,
        to.to_column(),
        move_id,
    )
    .execute(connection)
    .bounded()
    .await
    .map(drop)
}

/// The move has come further.
pub(super) async fn set_state(
    connection: &mut PgConnection,
    merchant_id: &str,
    state: MoveState,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update merchants
        set move_state = $2
        where merchant_id = $1
        "#,
        merchant_id,
        state.as_str(),
    )
    .execute(connection)
    .bounded()
    .await
    .map(drop)
}

/// This database serves the merchant.
pub(super) async fn serve(connection: &mut PgConnection, merchant_id: &str) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        update merchants
        set move_state = null,
            move_cell = null,
            move_id = null,
            move_since = null
        where merchant_id = $1
        "#,
        merchant_id,
    )
    .execute(connection)
    .bounded()
    .await
    .map(drop)
}

/// How long ago the move began, by the database's clock.
pub(super) async fn moving_for(
    connection: &mut PgConnection,
    merchant_id: &str,
) -> sqlx::Result<Duration> {
    let seconds = sqlx::query_scalar!(
        r#"
        select coalesce(extract(epoch from clock_timestamp() - move_since), 0)::float8 as "seconds!"
        from merchants
        where merchant_id = $1
        "#,
        merchant_id,
    )
    .fetch_one(connection)
    .bounded()
    .await?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// The merchant's keys that are at work.
pub(super) async fn count_unsettled(
    connection: &mut PgConnection,
    merchant_id: &str,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from unsettled_keys
        where merchant_id = $1
        "#,
        merchant_id,
    )
    .fetch_one(connection)
    .bounded()
    .await
}

/// SHA-256 of the merchant's API keys that are not revoked, in lower-case hexadecimal digits.
pub(super) async fn api_key_hashes(
    connection: &mut PgConnection,
    merchant_id: &str,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        select encode(secret_hash, 'hex') as "hash!"
        from api_keys
        where merchant_id = $1
            and revoked_at is null
        order by api_key_id
        "#,
        merchant_id,
    )
    .fetch_all(connection)
    .bounded()
    .await
}

/// The merchants in one of these states, as a list of SQL literals; empty if there are none.
pub(super) async fn literals_of_moving(
    connection: &mut PgConnection,
    states: &[MoveState],
) -> sqlx::Result<String> {
    let states: Vec<String> = states
        .iter()
        .map(|state| state.as_str().to_owned())
        .collect();
    sqlx::query_scalar!(
        r#"
        select coalesce(string_agg(quote_literal(merchant_id), ', ' order by merchant_id), '') as "literals!"
        from merchants
        where move_state = any($1)
        "#,
        &states,
    )
    .fetch_one(connection)
    .bounded()
    .await
}

/// A table's columns in their order, quoted where that is needed.
pub(super) async fn columns(
    connection: &mut PgConnection,
    table: &str,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        select quote_ident(attname::text) as "column!"
        from pg_attribute
        where attrelid = to_regclass($1)
            and attnum > 0
            and not attisdropped
        order by attnum
        "#,
        table,
    )
    .fetch_all(connection)
    .bounded()
    .await
}

/// The merchant's own row without what the move writes, as JSON.
pub(super) async fn merchant_row(
    connection: &mut PgConnection,
    merchant_id: &str,
) -> sqlx::Result<serde_json::Value> {
    let of_the_move = OF_THE_MOVE.map(str::to_owned).to_vec();
    sqlx::query_scalar!(
        r#"
        select to_jsonb(m) - $2::text[] as "row!"
        from merchants m
        where merchant_id = $1
        "#,
        merchant_id,
        &of_the_move,
    )
    .fetch_one(connection)
    .bounded()
    .await
}

/// The merchant arrives: its row is made, or made anew. Returns `false` if the merchant is served here.
pub(super) async fn arrive(
    connection: &mut PgConnection,
    row: &serde_json::Value,
    from: Option<Cell>,
    move_id: Uuid,
) -> sqlx::Result<bool> {
    let columns = columns(connection, "merchants").await?;
    let excluded: Vec<String> = columns
        .iter()
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    let (columns, excluded) = (columns.join(", "), excluded.join(", "));
    let sql = format!(
        "insert into merchants ({columns}) \
         select {columns} from jsonb_populate_record(null::merchants, $1 || jsonb_build_object( \
             'move_state', 'ARRIVING', 'move_cell', $2::smallint, 'move_id', $3::uuid, 'move_since', now())) \
         on conflict (merchant_id) do update set {excluded} where merchants.move_state in ('MOVED', 'ARRIVING')"
    );
    let made = sqlx::query(AssertSqlSafe(sql))
        .bind(row)
        .bind(from.map(Cell::to_column))
        .bind(move_id)
        .execute(connection)
        .bounded()
        .await?;
    Ok(made.rows_affected() == 1)
}

/// The merchant is no longer here. Its other rows are gone already.
pub(super) async fn forget(connection: &mut PgConnection, merchant_id: &str) -> sqlx::Result<()> {
    sqlx::query!("delete from merchants where merchant_id = $1", merchant_id)
        .execute(connection)
        .bounded()
        .await
        .map(drop)
}

/// A text as a SQL literal, for statements that take no parameters.
pub(super) async fn literal(connection: &mut PgConnection, text: &str) -> sqlx::Result<String> {
    sqlx::query_scalar!(r#"select quote_literal($1::text) as "literal!""#, text)
        .fetch_one(connection)
        .bounded()
        .await
}
