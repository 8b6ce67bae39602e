//! A session: the settings that the engine needs, and whether a connection can be used.

use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, Row};
use tokio::time::timeout;

use super::borrowed::Bounded;

/// Set on every connection, overriding the role and the URL, and checked after each connect, because a pooler may drop a client's
/// start-up settings.
///
/// ```
/// use payonce_engine::database::SESSION_SETTINGS;
///
/// // For a pooler that drops a client's settings: they can be the role's.
/// let statements = SESSION_SETTINGS.map(|(setting, value)| format!("alter role shop set {setting} = '{value}';"));
/// assert_eq!(statements[0], "alter role shop set statement_timeout = '5s';");
/// ```
pub const SESSION_SETTINGS: [(&str, &str); 6] = [
    // Every statement takes milliseconds; one that takes this long will not end.
    ("statement_timeout", "5s"),
    // Holders of row locks do nothing but talk to the database, so a lock is free long before. Shorter than the statement's
    // time-out: a request that waits for a row is told that it is in use, not that the database is gone.
    ("lock_timeout", "3s"),
    // A process that died, or whose machine died, keeps its locks no longer than this.
    ("idle_in_transaction_session_timeout", "10s"),
    // A generic plan that was made for an empty table scans the whole table when it is no longer empty.
    ("plan_cache_mode", "force_custom_plan"),
    // Compiling takes longer than any statement of ours.
    ("jit", "off"),
    // The engine waits for a row's lock and then reads what was committed in the meantime; a stricter level would fail there.
    ("default_transaction_isolation", "read committed"),
];

/// With these the server notices within a minute that a client's machine is gone, and frees the session. Sockets within one
/// machine have no such settings, so they are not asked for.
const KEEPALIVE_SETTINGS: [(&str, &str); 3] = [
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
];

/// Adds the session settings that the engine needs to the options of a connection.
///
/// A pooler may drop them. A pool made by [`super::pool_options`] sets them again after each connect; for others, set them for
/// the role (`alter role … set statement_timeout = '5s'`).
///
/// ```
/// use payonce_engine::database::session_options;
///
/// let options = session_options("postgres://shop@db.example/orders".parse()?);
/// let settings = options.get_options().unwrap_or_default();
/// assert!(settings.contains("statement_timeout=5s"), "{settings}");
/// # Ok::<(), sqlx::Error>(())
/// ```
pub fn session_options(options: PgConnectOptions) -> PgConnectOptions {
    options
        .options(SESSION_SETTINGS)
        .options(KEEPALIVE_SETTINGS)
}

/// How long an idle connection may take to answer.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// A session setting that marks pools made by [`super::pool_options`], which check connections before they lend them.
pub(super) const LENT_CHECKED: &str = "payonce.lent_checked";

/// The SQL that is true if this server takes no writes.
const TAKES_NO_WRITES: &str =
    "pg_is_in_recovery() or current_setting('transaction_read_only')::boolean";

/// Sets what is missing, and checks whether the server takes writes, in one round trip.
static PREPARE: LazyLock<String> = LazyLock::new(|| {
    let settings = SESSION_SETTINGS.map(|(name, value)| format!("('{name}', '{value}')"));
    format!(
        "select {TAKES_NO_WRITES} as takes_no_writes, \
         set_config('{LENT_CHECKED}', 'on', false) as lent_checked, \
         (select count(set_config(name, value, false)) \
          from (values {}) as needed (name, value) \
          where current_setting(name, true) is distinct from value) as missing",
        settings.join(", ")
    )
});

static TAKES_WRITES: LazyLock<String> =
    LazyLock::new(|| format!("select not ({TAKES_NO_WRITES}) as takes_writes"));

/// In a transaction, now() is the time of its BEGIN; outside, it is the statement's own.
static IS_USABLE: LazyLock<String> = LazyLock::new(|| {
    format!("select now() = statement_timestamp() and not ({TAKES_NO_WRITES}) as is_usable")
});

/// The same check with BEGIN, in one message: the division fails where the connection cannot be used.
pub(super) static CHECKED_BEGIN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "select 1 / (now() = statement_timestamp() and not ({TAKES_NO_WRITES}))::integer; begin"
    )
});

/// Prepares a new connection: sets what the engine needs. Returns an error if its server takes no writes.
pub(super) async fn prepare(connection: &mut PgConnection) -> sqlx::Result<()> {
    let row = sqlx::raw_sql(PREPARE.as_str())
        .fetch_one(connection)
        .bounded()
        .await?;
    let missing: i64 = row.try_get("missing")?;
    if missing > 0 {
        tracing::debug!(
            missing,
            "the session lacked settings, as behind a pooler that ignores them; they are set now"
        );
    }
    if row.try_get("takes_no_writes")? {
        return Err(takes_no_writes());
    }
    Ok(())
}

/// Returns true if the server is a primary that takes writes.
///
/// ```no_run
/// # async fn look(pool: sqlx::PgPool) -> sqlx::Result<()> {
/// use payonce_engine::database::{acquire, takes_writes};
///
/// if !takes_writes(&mut *acquire(&pool).await?).await? {
///     eprintln!("this is a standby");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The database's.
pub async fn takes_writes(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let row = sqlx::raw_sql(TAKES_WRITES.as_str())
        .fetch_one(connection)
        .bounded()
        .await?;
    row.try_get("takes_writes")
}

/// The error for a standby.
///
/// ```
/// use payonce_engine::database::{is_transient, takes_no_writes};
///
/// // Worth another try: an address of several servers may lead to the primary then.
/// assert!(is_transient(&takes_no_writes()));
/// ```
pub fn takes_no_writes() -> sqlx::Error {
    sqlx::Error::Io(io::Error::other(
        "the server accepts no writes: it is a standby, or default_transaction_read_only is on",
    ))
}

/// Returns true if an idle connection can be lent. Returns false if it does not answer in time, is in a transaction or broken, or its
/// server takes no writes; the pool closes it and opens another.
pub(super) async fn is_usable(connection: &mut PgConnection) -> bool {
    // A simple query: one round trip, and nothing to prepare.
    let asked = sqlx::raw_sql(IS_USABLE.as_str()).fetch_one(connection);
    match timeout(CHECK_TIMEOUT, asked).await {
        Ok(Ok(row)) => row.try_get("is_usable").unwrap_or(false),
        Ok(Err(_)) | Err(_) => false,
    }
}
