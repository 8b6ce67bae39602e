//! The doctor's queries. They only read.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::database::{Bounded, interval};
use crate::merchants::Move;

/// Maximum number of keys that are counted. Beyond it, "at least" is enough to act on.
pub(super) const MOST_COUNTED: i64 = 100_000;

/// A setting, and the source of its value, in PostgreSQL's words.
#[derive(Clone, Debug)]
pub(super) struct ServerSetting {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) source: String,
}

impl ServerSetting {
    /// `by …`
    pub(super) fn by(&self) -> String {
        match self.source.as_str() {
            "default" => "by default".to_owned(),
            "user" | "database user" => "by the role".to_owned(),
            "client" | "session" => "by the connection".to_owned(),
            source => format!("by the {source}"),
        }
    }
}

pub(super) async fn settings(
    connection: &mut PgConnection,
    names: &[&str],
) -> sqlx::Result<Vec<ServerSetting>> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    sqlx::query_as!(
        ServerSetting,
        r#"
        select
            name as "name!",
            setting as "value!",
            source as "source!"
        from pg_settings
        where name = any($1)
        "#,
        &names,
    )
    .fetch_all(connection)
    .bounded()
    .await
}

/// Settings as a session shows them, with their units.
pub(super) async fn current_values(
    connection: &mut PgConnection,
    names: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let rows = sqlx::query!(
        r#"
        select
            name as "name!",
            current_setting(name, true) as "value!"
        from unnest($1::text[]) as asked (name)
        "#,
        &names,
    )
    .fetch_all(connection)
    .bounded()
    .await?;
    Ok(rows.into_iter().map(|row| (row.name, row.value)).collect())
}

pub(super) async fn tables_without_autovacuum(
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"
        select c.relname::text as "name!"
        from pg_class c
        cross join pg_options_to_table(c.reloptions) as o
        where c.relnamespace = current_schema()::regnamespace
            and c.relkind = 'r'
            and o.option_name = 'autovacuum_enabled'
            and not o.option_value::boolean
        order by c.relname
        "#,
    )
    .fetch_all(connection)
    .bounded()
    .await
}

/// Whether it accepts writes.
pub(super) struct Mode {
    pub(super) in_recovery: bool,
    pub(super) read_only: bool,
}

pub(super) async fn mode(connection: &mut PgConnection) -> sqlx::Result<Mode> {
    sqlx::query_as!(
        Mode,
        r#"
        select
            pg_is_in_recovery() as "in_recovery!",
            current_setting('default_transaction_read_only')::boolean as "read_only!"
        "#,
    )
    .fetch_one(connection)
    .bounded()
    .await
}

pub(super) async fn clock(connection: &mut PgConnection) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#)
        .fetch_one(connection)
        .bounded()
        .await
}

/// A migration that was applied to the database.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    pub(super) version: i64,
    pub(super) success: bool,
    pub(super) checksum: Vec<u8>,
}

/// Returns `None` if no migration was ever applied.
pub(super) async fn migrations(
    connection: &mut PgConnection,
) -> sqlx::Result<Option<Vec<Applied>>> {
    // Not checked at compile time: the table is sqlx's own, and does not exist if migrations were applied by psql.
    let is_there: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *connection)
        .bounded()
        .await?;
    if !is_there {
        return Ok(None);
    }
    let sql = "select version, success, checksum from _sqlx_migrations order by version";
    let rows: Vec<(i64, bool, Vec<u8>)> =
        sqlx::query_as(sql).fetch_all(connection).bounded().await?;
    let applied = rows
        .into_iter()
        .map(|(version, success, checksum)| Applied {
            version,
            success,
            checksum,
        });
    Ok(Some(applied.collect()))
}

/// The role of our connection.
pub(super) struct Role {
    pub(super) name: String,
    /// `None` if the role may not use any schema of its search path.
    pub(super) schema: Option<String>,
    pub(super) may_create: bool,
}

pub(super) async fn role(connection: &mut PgConnection) -> sqlx::Result<Role> {
    sqlx::query_as!(
        Role,
        r#"
        select
            quote_ident(current_user) as "name!",
            current_schema()::text as "schema",
            coalesce(has_schema_privilege(current_schema(), 'create'), false) as "may_create!"
        "#,
    )
    .fetch_one(connection)
    .bounded()
    .await
}

/// Returns the privileges that the role lacks. Returns none if there is no such table.
pub(super) async fn missing_privileges(
    connection: &mut PgConnection,
    table: &str,
    privileges: &[&str],
) -> sqlx::Result<Vec<String>> {
    let privileges: Vec<String> = privileges.iter().map(|name| (*name).to_owned()).collect();
    sqlx::query_scalar!(
        r#"
        select privilege as "privilege!"
        from unnest($2::text[]) with ordinality as needed (privilege, place)
        where not has_table_privilege(to_regclass($1)::oid, privilege)
        order by place
        "#,
        table,
        &privileges,
    )
    .fetch_all(connection)
    .bounded()
    .await
}

/// Keys whose lease expired long ago.
pub(super) struct Stuck {
    pub(super) count: i64,
    pub(super) oldest: Duration,
}

pub(super) async fn stuck_keys(
    connection: &mut PgConnection,
    since: Duration,
) -> sqlx::Result<Stuck> {
    let row = sqlx::query!(
        r#"
        select
            count(*) as "count!",
            coalesce(extract(epoch from now() - min(u.claimed_at)), 0)::double precision as "oldest_seconds!"
        from unsettled_keys u
        join idempotency_keys k
            on k.merchant_id = u.merchant_id
            and k.operation = u.operation
            and k.key = u.key
        where k.lease_expires_at < now() - $1::interval
        "#,
        interval(since),
    )
    .fetch_one(connection)
    .bounded()
    .await?;
    Ok(Stuck {
        count: row.count,
        oldest: Duration::try_from_secs_f64(row.oldest_seconds).unwrap_or_default(),
    })
}

/// Counts final keys that expired this long ago, up to [`MOST_COUNTED`].
pub(super) async fn overdue_keys(
    connection: &mut PgConnection,
    since: Duration,
) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from (
            select expires_at
            from idempotency_keys
            where expires_at < now() - $1::interval
                and state <> 'PROCESSING'
            limit $2
        ) as overdue
        "#,
        interval(since),
        MOST_COUNTED,
    )
    .fetch_one(connection)
    .bounded()
    .await
}

/// A merchant's move, as its row says.
pub(super) struct SeenMove {
    pub(super) merchant_id: String,
    pub(super) moving: Move,
    /// Since it began, by the database's clock.
    pub(super) age: Duration,
}

/// The moves that have not come to their end, and those to another cell that began in the last day.
pub(super) async fn moves(connection: &mut PgConnection) -> sqlx::Result<Vec<SeenMove>> {
    let rows = sqlx::query!(
        r#"
        select
            merchant_id,
            move_state,
            move_cell,
            move_since,
            extract(epoch from now() - move_since)::float8 as "age_seconds!"
        from merchants
        where move_state <> 'MOVED'
            or move_since > now() - interval '1 day'
        order by move_since
        "#,
    )
    .fetch_all(connection)
    .bounded()
    .await?;
    let mut moves = Vec::with_capacity(rows.len());
    for row in rows {
        let age = Duration::try_from_secs_f64(row.age_seconds).unwrap_or_default();
        let moving = Move::from_columns(row.move_state, row.move_cell, row.move_since)?;
        moves.extend(moving.map(|moving| SeenMove {
            merchant_id: row.merchant_id,
            moving,
            age,
        }));
    }
    Ok(moves)
}
