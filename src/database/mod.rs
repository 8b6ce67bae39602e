//! The database of every program: each wait is bounded, no connection is lent inside a transaction, and a database that may lose
//! confirmed commits is refused.
//!
//! The engine lends and uses connections: [`payonce_engine::database`]. The service adds:
//!
//! * `url`: parses a URL, and adds settings.
//! * `server`: checks whether a program can work on a server.
//! * `migrate`: the schema, and the check that it is current.

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

/// The settings of a database.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host:port/database?parameters`.
    pub url: SecretString,
    /// Maximum number of connections, at least 1.
    pub max_connections: u32,
    /// Accept a database that may lose confirmed commits.
    pub allow_unsafe: bool,
}

impl DatabaseSettings {
    /// The engine's setting for a database that may lose confirmed commits.
    pub fn durability(&self) -> Durability {
        if self.allow_unsafe {
            Durability::Waived
        } else {
            Durability::Required
        }
    }
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL cannot be used. Final. The message does not repeat it, because it contains a password.
    #[error("--database-url (DATABASE_URL) {0}")]
    Configuration(String),
    /// No connection was made within 3 s, or the server refused it.
    #[error("cannot reach the database at {address}")]
    Unreachable {
        /// `host:port/database as user`, without the password.
        address: String,
        /// The error of the network or the server.
        source: sqlx::Error,
    },
    /// Final.
    #[error("the database is PostgreSQL {0}; payonce needs {OLDEST_VERSION} or later")]
    TooOld(u32),
    /// It may become a primary later.
    #[error("the database at {address} accepts no writes")]
    TakesNoWrites {
        /// `host:port/database as user`, without the password.
        address: String,
        /// Why.
        source: sqlx::Error,
    },
    /// A pooler sends the statements of one connection to several sessions, which loses their settings and locks.
    #[error(
        "the pooler at {address} shares sessions between connections (transaction or statement mode); payonce needs sessions \
         of its own: set pool_mode = session"
    )]
    SharedSessions {
        /// `host:port/database as user`, without the password.
        address: String,
    },
    /// Its encoding cannot store names and descriptions in all languages. Final.
    #[error("the database's encoding is {0}; payonce needs UTF8")]
    Encoding(String),
    /// The server, the role or the URL turned off a setting that makes commits durable.
    #[error(
        "{setting} is off: the database may lose confirmed commits. \
         Turn it on, or pass --allow-unsafe-database"
    )]
    Unsafe {
        /// The setting's name in PostgreSQL, and the node's address in a cluster.
        setting: String,
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

/// Opens the pool, after checking with one connection that the database can be reached, is recent enough and accepts writes.
///
/// The pool alone would silently try again until its time is over, and give no reason. If the role, the database or the server
/// allows fewer connections than requested, the pool has that number.
pub async fn connect(settings: &DatabaseSettings) -> Result<PgPool, DatabaseError> {
    let options = connect_options(&settings.url)?;
    let mut connection = reach(&options).await?;
    let checked = check_server(&mut connection, &options).await;
    let limits = limits(&mut connection).bounded().await;
    // Dropped if it does not close properly.
    drop(connection.close().bounded().await);
    checked?;
    // If the server does not say, the pool finds out.
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

/// Refuses a database that may lose confirmed commits, or warns about it if that is allowed.
///
/// `synchronous_commit` is read in a session of this pool, because the URL or the role can turn it off, too.
pub async fn check_durability(pool: &PgPool, allow_unsafe: bool) -> Result<(), DatabaseError> {
    let mut connection = acquire(pool).await?;
    for setting in settings_that_lose_commits(&mut connection).await? {
        if !allow_unsafe {
            return Err(DatabaseError::Unsafe { setting });
        }
        tracing::warn!(
            setting,
            "is off: the database may lose confirmed commits, which is allowed here"
        );
    }
    Ok(())
}

/// Maximum number of connections.
fn granted(wanted: u32, limit: Option<&Limit>) -> u32 {
    match limit {
        Some(limit) if limit.connections < wanted => {
            tracing::warn!(
                wanted,
                granted = limit.connections,
                "{} allows fewer connections than PAYONCE_DATABASE_MAX_CONNECTIONS: only these are used",
                limit.whose
            );
            limit.connections.max(1)
        }
        _ => wanted,
    }
}

/// Opens one connection like those of the pool, without the checks of [`connect`].
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

/// The address in a URL, without its password. Empty if the URL is not valid.
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
