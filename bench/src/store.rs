//! The benchmark's SQL.
//!
//! It is not checked at compile time: `sqlx-data.json` describes only payonce's own statements, and this program is not shipped. A
//! statement that does not match the schema ends the run.

use sqlx::PgConnection;

/// The settings that make a commit durable, and the facts about the server for the report.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct ServerSettings {
    pub version: String,
    pub fsync: String,
    pub synchronous_commit: String,
    pub full_page_writes: String,
    pub wal_sync_method: String,
    pub shared_buffers: String,
    pub max_wal_size: String,
    pub max_connections: i32,
}

pub async fn server_settings(connection: &mut PgConnection) -> sqlx::Result<ServerSettings> {
    sqlx::query_as(
        "select
            current_setting('server_version') as version,
            current_setting('fsync') as fsync,
            current_setting('synchronous_commit') as synchronous_commit,
            current_setting('full_page_writes') as full_page_writes,
            current_setting('wal_sync_method') as wal_sync_method,
            current_setting('shared_buffers') as shared_buffers,
            current_setting('max_wal_size') as max_wal_size,
            current_setting('max_connections')::int as max_connections",
    )
    .fetch_one(connection)
    .await
}

/// The data directory, if the role may read it.
pub async fn data_directory(connection: &mut PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar("show data_directory")
        .fetch_one(connection)
        .await
}

pub async fn create_database(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let sql = format!("create database {name} template template0 encoding 'UTF8'");
    execute(connection, sql).await
}

pub async fn drop_database(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    execute(
        connection,
        format!("drop database if exists {name} with (force)"),
    )
    .await
}

/// Makes a checkpoint, so that no run pays for the writes of an earlier one.
pub async fn checkpoint(connection: &mut PgConnection) -> sqlx::Result<()> {
    execute(connection, "checkpoint".to_owned()).await
}

/// From now on commits wait until the standby of this name has them on its disk.
pub async fn wait_for_standby(connection: &mut PgConnection, name: &str) -> sqlx::Result<()> {
    let sql = format!("alter system set synchronous_standby_names = '{name}'");
    execute(connection, sql).await?;
    execute(connection, "select pg_reload_conf()".to_owned()).await
}

/// Whether a standby follows that commits wait for.
pub async fn has_synchronous_standby(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar("select exists (select from pg_stat_replication where sync_state = 'sync')")
        .fetch_one(connection)
        .await
}

/// Whether somebody of that `application_name` is connected to this database.
pub async fn is_connected(connection: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (
            select from pg_stat_activity
            where datname = current_database() and application_name = $1
        )",
    )
    .bind(name)
    .fetch_one(connection)
    .await
}

/// Keys past their time, and final ones that are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Expiry {
    pub expired: i64,
    pub kept: i64,
}

pub async fn count_expired(connection: &mut PgConnection) -> sqlx::Result<Expiry> {
    sqlx::query_as(
        "select
            count(*) filter (where expires_at < now()) as expired,
            count(*) filter (where expires_at >= now() and state = 'COMPLETED') as kept
        from idempotency_keys",
    )
    .fetch_one(connection)
    .await
}

/// Statements that the benchmark composes from its own names.
pub async fn execute(connection: &mut PgConnection, sql: String) -> sqlx::Result<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(connection)
        .await
        .map(drop)
}

/// A table's fill factor, in percent.
pub async fn fill_factor(connection: &mut PgConnection, table: &str) -> sqlx::Result<i32> {
    sqlx::query_scalar(
        "select coalesce((select option_value::integer from pg_options_to_table(reloptions) \
                          where option_name = 'fillfactor'), 100) \
         from pg_class where oid = $1::regclass",
    )
    .bind(table)
    .fetch_one(connection)
    .await
}

/// Final keys and payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Counts {
    pub keys: i64,
    pub payments: i64,
}

/// Those of payonce's tables. The reference handler's have the same names and states.
pub async fn count_final(connection: &mut PgConnection) -> sqlx::Result<Counts> {
    sqlx::query_as(
        "select
            (select count(*) from idempotency_keys where state = 'COMPLETED') as keys,
            (select count(*) from payments where state = 'SUCCESS') as payments",
    )
    .fetch_one(connection)
    .await
}

/// Final payments, where there are no keys.
pub async fn count_payments(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from payments where state = 'SUCCESS'")
        .fetch_one(connection)
        .await
}

/// Number of updates of a table, and of those that were HOT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Updates {
    pub all: i64,
    pub hot: i64,
}

pub async fn updates(connection: &mut PgConnection, table: &str) -> sqlx::Result<Updates> {
    sqlx::query_as(
        r#"select n_tup_upd as "all", n_tup_hot_upd as hot from pg_stat_user_tables where relname = $1"#,
    )
    .bind(table)
    .fetch_one(connection)
    .await
}

/// Bytes of a table and of its indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Sizes {
    pub heap: i64,
    pub indexes: i64,
}

pub async fn sizes(connection: &mut PgConnection, table: &str) -> sqlx::Result<Sizes> {
    sqlx::query_as(
        "select pg_table_size($1::regclass) as heap, pg_indexes_size($1::regclass) as indexes",
    )
    .bind(table)
    .fetch_one(connection)
    .await
}

/// Number of connections to this database without this one.
pub async fn count_connections(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()",
    )
    .fetch_one(connection)
    .await
}

/// A table's columns in the order of `copy`.
pub async fn columns(connection: &mut PgConnection, table: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select attname::text from pg_attribute
        where attrelid = $1::regclass and attnum > 0 and not attisdropped
        order by attnum",
    )
    .bind(table)
    .fetch_all(connection)
    .await
}

/// The statements that drop and recreate a table's indexes and constraints, in this order.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct IndexStatements {
    pub dropping: String,
    pub creating: String,
}

/// Constraints with an index, and indexes without a constraint.
pub async fn index_statements(
    connection: &mut PgConnection,
    table: &str,
) -> sqlx::Result<Vec<IndexStatements>> {
    sqlx::query_as(
        "select
            case
                when c.conname is null then format('drop index %s', i.indexrelid::regclass)
                else format('alter table %s drop constraint %I cascade', i.indrelid::regclass, c.conname)
            end as dropping,
            case
                when c.conname is null then pg_get_indexdef(i.indexrelid)
                else format(
                    'alter table %s add constraint %I %s',
                    i.indrelid::regclass,
                    c.conname,
                    pg_get_constraintdef(c.oid)
                )
            end as creating
        from pg_index i
        left join pg_constraint c
            on c.conindid = i.indexrelid
            and c.contype in ('p', 'u')
        where i.indrelid = $1::regclass
        order by i.indexrelid",
    )
    .bind(table)
    .fetch_all(connection)
    .await
}

/// The foreign keys that reference a table's primary key.
pub async fn references_to(
    connection: &mut PgConnection,
    table: &str,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select format('alter table %s add constraint %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
        from pg_constraint
        where confrelid = $1::regclass and contype = 'f'",
    )
    .bind(table)
    .fetch_all(connection)
    .await
}

/// The statement that a developer would write in a cron job. Returns the number of keys that it deleted.
pub async fn plain_delete(connection: &mut PgConnection) -> sqlx::Result<u64> {
    sqlx::query("delete from idempotency_keys where expires_at < now()")
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
}
