//! The server: the check whether a program can work on it, and its limits of connections.

use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Row};

use super::{Bounded, DatabaseError, OLDEST_VERSION, describe, takes_no_writes, takes_writes};

/// Refuses a server that is too old, accepts no writes, or stores text in another encoding.
pub(super) async fn check(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<(), DatabaseError> {
    // Other databases with PostgreSQL's protocol may not report it, and are still accepted.
    let version = connection.server_version_num();
    if let Some(version) = version.map(|number| number / 10_000)
        && version < OLDEST_VERSION
    {
        return Err(DatabaseError::TooOld(version));
    }
    let failed = |source| DatabaseError::Unreachable {
        address: describe(options),
        source,
    };
    // A simple query, as in the pool, because nothing is known about the server yet.
    let encoding = sqlx::raw_sql("select current_setting('server_encoding') as encoding")
        .fetch_one(&mut *connection)
        .bounded()
        .await
        .and_then(|row| row.try_get::<String, _>("encoding"))
        .map_err(failed)?;
    if !encoding.eq_ignore_ascii_case("UTF8") {
        return Err(DatabaseError::Encoding(encoding));
    }
    if takes_writes(connection).await.map_err(failed)? {
        Ok(())
    } else {
        Err(DatabaseError::TakesNoWrites {
            address: describe(options),
            source: takes_no_writes(),
        })
    }
}

/// Limits of connections, and how many others are open.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) limit: i32,
    pub(crate) reserved: i32,
    /// -1 if there is none.
    pub(crate) role_limit: i32,
    /// -1 if there is none.
    pub(crate) database_limit: i32,
    pub(crate) used: i32,
}

/// The limit that is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) connections: u32,
    /// `the server`, `the role` or `the database`.
    pub(crate) whose: &'static str,
}

impl Limits {
    /// The limit that is reached first.
    pub(crate) fn tightest(&self) -> Limit {
        let none = Limit {
            connections: 0,
            whose: "the server",
        };
        [
            ("the server", self.limit - self.reserved),
            ("the role", self.role_limit),
            ("the database", self.database_limit),
        ]
        .into_iter()
        // In PostgreSQL, -1 means that the role or the database has no limit of its own.
        .filter_map(|(whose, limit)| {
            u32::try_from(limit)
                .ok()
                .map(|connections| Limit { connections, whose })
        })
        .min_by_key(|limit| limit.connections)
        .unwrap_or(none)
    }
}

pub(crate) async fn limits(connection: &mut PgConnection) -> sqlx::Result<Limits> {
    sqlx::query_as!(
        Limits,
        r#"
        select
            current_setting('max_connections')::integer as "limit!",
            current_setting('superuser_reserved_connections')::integer
                -- Since PostgreSQL 16.
                + coalesce(current_setting('reserved_connections', true), '0')::integer as "reserved!",
            (select rolconnlimit from pg_roles where rolname = current_user) as "role_limit!",
            (select datconnlimit from pg_database where datname = current_database()) as "database_limit!",
            -- Unlike pg_stat_activity, every role sees it whole.
            (select greatest(sum(numbackends) - 1, 0)::integer from pg_stat_database) as "used!"
        "#,
    )
    .fetch_one(connection)
    .await
}
