//! The database, as every program of this crate opens it: each wait bounded, no connection lent
//! inside a transaction, and refused where it would lose what it confirmed.
//!
//! # What the engine needs of a pool
//!
//! A pool made by [`pool_options`], whose connections are made by [`connect_options`] or have at least a
//! `statement_timeout`: each use of a connection ends after [`USE_TIMEOUT`], whatever the statement. The isolation level is
//! READ COMMITTED, and the server is a primary.
//!
//! * `url`: what a URL says, and what is added to it.
//! * `session`: the settings of a session, and whether it can be used.
//! * `pool`, `shortage`: connections, lent; what happens while there are too few.
//! * `lease`: a connection that is lent, its transaction, and the deadline of each use.
//! * `errors`: what an error of a query means.
//! * `server`, `durability`, `migrate`: what is checked before a program works.

mod durability;
mod errors;
mod lease;
mod metrics;
mod migrate;
mod pool;
mod server;
mod session;
pub(crate) mod shortage;
mod url;

use secrecy::SecretString;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::timeout;

pub use self::durability::check_durability;
pub(crate) use self::errors::{is_lock_timeout, is_of_an_item, is_of_its_content};
pub use self::errors::{is_too_slow, is_transient, is_wrong_connection, may_have_committed};
pub(crate) use self::lease::timed_out;
pub use self::lease::{Bounded, Lease, Transaction, USE_TIMEOUT, Within};
pub use self::metrics::describe_metrics;
pub use self::migrate::{migrate, schema_is_current};
pub(crate) use self::pool::MAX_LIFETIME;
pub use self::pool::{ACQUIRE_TIMEOUT, acquire, begin, pool_options};
pub(crate) use self::server::{Limit, Limits, limits};
pub(crate) use self::session::SESSION_SETTINGS;
pub use self::url::connect_options;

/// The oldest major version that this crate is tested with.
pub(crate) const OLDEST_VERSION: u32 = 14;

/// Which database, and how it is used.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database?parameters`.
    pub url: SecretString,
    /// The most connections, at least 1.
    pub max_connections: u32,
    /// Work on a database that may lose what it confirmed.
    pub allow_unsafe: bool,
}

/// Why a database cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL can't be used. Final; it is not repeated, because it holds a password.
    #[error("--database-url (DATABASE_URL) {0}")]
    Configuration(String),
    /// No connection came about within 3 s, or the server refused it.
    #[error("cannot reach the database at {address}")]
    Unreachable {
        /// `host:port/database as user`, without the password.
        address: String,
        /// What the network or the server said.
        source: sqlx::Error,
    },
    /// Final.
    #[error("the database is PostgreSQL {0}; payonce needs {OLDEST_VERSION} or later")]
    TooOld(u32),
    /// It may become a primary later.
    #[error("the database at {address} takes no writes")]
    TakesNoWrites {
        /// `host:port/database as user`, without the password.
        address: String,
        /// Why.
        source: sqlx::Error,
    },
    /// Names and descriptions in other languages could not be stored. Final.
    #[error("the database's encoding is {0}; payonce needs UTF8")]
    Encoding(String),
    /// The server, the role or the URL turned off what makes a commit last.
    #[error(
        "{setting} is off: the database may lose what it confirmed. \
         Turn it on, or pass --allow-unsafe-database"
    )]
    Unsafe {
        /// PostgreSQL's name of the setting.
        setting: &'static str,
    },
    /// No migration was ever applied.
    #[error("the database has no payonce schema; run payonce migrate first")]
    NoSchema,
    /// This program needs migrations that were not applied.
    #[error(
        "the database's schema is older than this program: it lacks migration {missing}; \
         run payonce migrate first"
    )]
    OldSchema {
        /// The first version that is missing.
        missing: i64,
    },
    /// A migration could not be applied.
    #[error("the migrations could not be applied")]
    Migration(#[from] MigrateError),
    /// A query failed.
    #[error("the database failed")]
    Query(#[from] sqlx::Error),
}

/// Opens the pool, after one connection has shown that the database can be reached, is recent
/// enough and takes writes.
///
/// The pool alone would try again in silence until its time is over, and not say why. Where the role, the database or the
/// server allows fewer connections than asked for, the pool is as small as that.
pub async fn connect(settings: &DatabaseSettings) -> Result<PgPool, DatabaseError> {
    let options = connect_options(&settings.url)?;
    let mut connection = reach(&options).await?;
    let checked = server::check(&mut connection, &options).await;
    let limits = limits(&mut connection).bounded().await;
    // Dropped where it does not end in order.
    drop(connection.close().bounded().await);
    checked?;
    // Where the server does not say, the pool finds out.
    let limit = limits.ok().map(|limits| limits.tightest());
    Ok(pool_options()
        .max_connections(granted(settings.max_connections, limit.as_ref()))
        .connect_lazy_with(options))
}

/// How many connections there can be.
fn granted(wanted: u32, limit: Option<&Limit>) -> u32 {
    match limit {
        Some(limit) if limit.connections < wanted => {
            tracing::warn!(
                wanted,
                granted = limit.connections,
                "{} allows fewer connections than PAYONCE_DATABASE_MAX_CONNECTIONS: only so many are used",
                limit.whose
            );
            limit.connections.max(1)
        }
        _ => wanted,
    }
}

/// One connection as the pool's are, whatever [`connect`] would say of its database.
pub(crate) async fn connect_once(url: &SecretString) -> Result<PgConnection, DatabaseError> {
    reach(&connect_options(url)?).await
}

async fn reach(options: &PgConnectOptions) -> Result<PgConnection, DatabaseError> {
    timeout(ACQUIRE_TIMEOUT, options.connect())
        .await
        .unwrap_or(Err(sqlx::Error::PoolTimedOut))
        .map_err(unreachable(options))
}

fn unreachable(options: &PgConnectOptions) -> impl Fn(sqlx::Error) -> DatabaseError + use<> {
    let address = url::describe(options);
    move |source| DatabaseError::Unreachable {
        address: address.clone(),
        source,
    }
}

/// Where a URL leads, without its password; nothing, where it is none.
pub(crate) fn address(url: &SecretString) -> String {
    connect_options(url).map_or_else(|_| String::new(), |options| url::describe(&options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unreachable_database_is_named_without_its_password() {
        let settings = DatabaseSettings {
            url: "postgres://u:hunter2@127.0.0.1:1/d".into(),
            max_connections: 1,
            allow_unsafe: false,
        };
        let error = connect(&settings)
            .await
            .map(drop)
            .expect_err("nobody listens on port 1");
        assert_eq!(
            error.to_string(),
            "cannot reach the database at 127.0.0.1:1/d as u"
        );
    }
}
