//! The database, as every program of this crate opens it: each wait bounded, no connection lent
//! inside a transaction, and refused where it would lose what it confirmed.
//!
//! How connections are lent and used is the engine's: [`payonce_engine::database`]. Here is what the service adds:
//!
//! * `url`: what a URL says, and what is added to it.
//! * `server`: whether a program can work on a server.
//! * `migrate`: the schema, and whether it is current.

mod migrate;
mod server;
mod url;

use secrecy::SecretString;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::timeout;

pub use payonce_engine::database::*;

pub use self::migrate::{migrate, schema_is_current};
pub(crate) use self::server::{Limit, Limits, limits};
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

impl DatabaseSettings {
    /// What the engine is to do on a database that may lose what it confirmed.
    pub fn durability(&self) -> Durability {
        if self.allow_unsafe {
            Durability::Waived
        } else {
            Durability::Required
        }
    }
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
    /// A pooler gives statements of one connection to several sessions, which loses their settings and locks.
    #[error(
        "the pooler at {address} shares sessions between connections (transaction or statement mode); payonce needs sessions \
         of its own: set pool_mode = session"
    )]
    SharedSessions {
        /// `host:port/database as user`, without the password.
        address: String,
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
    let checked = check_server(&mut connection, &options).await;
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

async fn check_server(
    connection: &mut PgConnection,
    options: &PgConnectOptions,
) -> Result<(), DatabaseError> {
    server::check(connection, options).await?;
    if shares_sessions(options, connection).await? {
        return Err(DatabaseError::SharedSessions {
            address: describe(options),
        });
    }
    Ok(())
}

/// Refuses a database that would lose what it confirmed, or warns of it where that is allowed.
///
/// `synchronous_commit` is asked of a session of this pool, so that one turned off by the URL or the role is seen, too.
pub async fn check_durability(pool: &PgPool, allow_unsafe: bool) -> Result<(), DatabaseError> {
    let mut connection = acquire(pool).await?;
    for setting in settings_that_lose_commits(&mut connection).await? {
        if !allow_unsafe {
            return Err(DatabaseError::Unsafe { setting });
        }
        tracing::warn!(
            setting,
            "is off: the database may lose what it confirmed, as allowed"
        );
    }
    Ok(())
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
    let address = describe(options);
    move |source| DatabaseError::Unreachable {
        address: address.clone(),
        source,
    }
}

/// Where a URL leads, without its password; nothing, where it is none.
pub(crate) fn address(url: &SecretString) -> String {
    connect_options(url).map_or_else(|_| String::new(), |options| describe(&options))
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    #[sqlx::test(migrations = false)]
    async fn a_session_that_turned_durability_off_is_refused_unless_allowed(
        _: PgPoolOptions,
        it: PgConnectOptions,
    ) {
        let unsafe_session = it.options([("synchronous_commit", "off")]);
        let pool = pool_options()
            .connect_with(unsafe_session)
            .await
            .expect("connected");
        check_durability(&pool, true).await.expect("allowed");
        let refused = check_durability(&pool, false)
            .await
            .expect_err("refused")
            .to_string();
        assert!(refused.contains("--allow-unsafe-database"), "{refused}");
    }

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
