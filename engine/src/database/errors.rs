//! What a query's error means: whether the statement may have been carried out, and whether to try it again.

use sqlx::postgres::PgDatabaseError;

/// SQLSTATE codes and classes: the server shuts down, crashed or ended the session; the connection is broken (08); or the server
/// ended an idle transaction, for example of a stopped process (25P03, 25P04). XX000 is an internal error: a cluster's node reports
/// so that it has lost another one, and what that one did is not known.
const SESSION_ENDED: [&str; 5] = ["08", "57P", "25P03", "25P04", "XX000"];

/// Errors that another connection may not have: the server is a standby or read-only (25006), the connection was left in a failed
/// transaction (25P02), or a pooler moved it to a session without its prepared statements (26000, 42P05). Class 28 and 3D000: this
/// server refuses the login.
const WRONG_CONNECTION: [&str; 6] = ["25006", "25P02", "26000", "42P05", "28", "3D000"];

/// Errors that a single row caused by its values: data exceptions (22), constraints (23), a row that is too large (54), two rows
/// for one key (21000); or that another transaction on the same row caused: a deadlock (40), a lock time-out (55P03).
const OF_AN_ITEM: [&str; 6] = ["22", "23", "54", "21000", "40", "55P03"];

fn server_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
}

/// Returns true if the server refused the statement with one of these SQLSTATEs. A class, such as `23`, stands for each of its codes.
///
/// ```no_run
/// # async fn look(connection: &mut sqlx::PgConnection) -> sqlx::Result<()> {
/// use payonce_engine::database::has_sqlstate;
///
/// match sqlx::query("select 1 from orders").execute(connection).await {
///     Err(error) if has_sqlstate(&error, &["42P01"]) => eprintln!("no migration has made the table yet"),
///     looked => drop(looked?),
/// }
/// # Ok(())
/// # }
/// ```
pub fn has_sqlstate(error: &sqlx::Error, codes: &[&str]) -> bool {
    server_error(error).is_some_and(|error| codes.iter().any(|code| error.code().starts_with(code)))
}

/// Returns true if the statement may have been carried out despite the error: the connection broke or did not answer in time, or
/// the server ended it.
///
/// This is about a statement that was sent. If there was no connection, nothing was sent.
///
/// ```
/// use payonce_engine::may_have_committed;
///
/// let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
/// assert!(may_have_committed(&sqlx::Error::Io(lost)));
/// assert!(!may_have_committed(&sqlx::Error::RowNotFound));
/// ```
pub fn may_have_committed(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        error => has_sqlstate(error, &SESSION_ENDED),
    }
}

/// Returns true if this connection, or the server behind it, is the wrong one: close it, and try another one. The statement was not
/// carried out, unless [`may_have_committed`] says otherwise.
///
/// ```
/// use payonce_engine::database::is_wrong_connection;
///
/// // The connection broke, so the next statement needs another one.
/// let lost = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
/// assert!(is_wrong_connection(&sqlx::Error::Io(lost)));
/// // No connection was lent at all.
/// assert!(!is_wrong_connection(&sqlx::Error::PoolTimedOut));
/// ```
pub fn is_wrong_connection(error: &sqlx::Error) -> bool {
    may_have_committed(error)
        || has_sqlstate(error, &WRONG_CONNECTION)
        // "cached plan must not change result type", whose text is translated: the table has changed since the statement was
        // prepared.
        || server_error(error).is_some_and(|error| {
            error.code() == "0A000" && error.routine() == Some("RevalidateCachedQuery")
        })
}

/// Returns true if the server does not support such a statement. It was not carried out.
pub(crate) fn is_unsupported(error: &sqlx::Error) -> bool {
    has_sqlstate(error, &["0A000"]) && !is_wrong_connection(error)
}

/// Returns true if the same transaction is likely to succeed when it is tried again.
///
/// ```
/// use payonce_engine::database::{is_transient, takes_no_writes};
///
/// assert!(is_transient(&sqlx::Error::PoolTimedOut));
/// // A standby: after the failover the address leads to the new primary.
/// assert!(is_transient(&takes_no_writes()));
/// assert!(!is_transient(&sqlx::Error::RowNotFound));
/// ```
pub fn is_transient(error: &sqlx::Error) -> bool {
    // 40: serialization failure or deadlock; 53: out of resources; 58: the server's own system failed.
    is_wrong_connection(error)
        || matches!(error, sqlx::Error::PoolTimedOut)
        || has_sqlstate(error, &["40", "53", "58"])
        || is_too_slow(error)
}

/// Returns true if the database answered that a time-out ended the statement: it waited for a lock (55P03), or was canceled
/// (57014).
///
/// ```no_run
/// # async fn lock(connection: &mut sqlx::PgConnection) -> sqlx::Result<()> {
/// use payonce_engine::database::is_too_slow;
///
/// let locked = sqlx::query("select 1 from orders where order_id = 7 for update").execute(connection).await;
/// match locked {
///     Err(error) if is_too_slow(&error) => eprintln!("busy; answer 503, and nothing was written"),
///     locked => drop(locked?),
/// }
/// # Ok(())
/// # }
/// ```
pub fn is_too_slow(error: &sqlx::Error) -> bool {
    has_sqlstate(error, &["55P03", "57014"])
}

/// Returns true if another transaction held a row for longer than `lock_timeout`. The statement was not carried out.
///
/// ```no_run
/// # async fn delete(connection: &mut sqlx::PgConnection) -> sqlx::Result<()> {
/// use payonce_engine::database::is_lock_timeout;
///
/// let deleted = sqlx::query("delete from carts where cart_id = 17").execute(connection).await;
/// match deleted {
///     // Another transaction is using the cart: the next run of this job deletes it.
///     Err(error) if is_lock_timeout(&error) => {}
///     deleted => drop(deleted?),
/// }
/// # Ok(())
/// # }
/// ```
pub fn is_lock_timeout(error: &sqlx::Error) -> bool {
    has_sqlstate(error, &["55P03"])
}

/// Returns true if a statement was refused because of the values that it writes, and would be each time: a data exception (22), a
/// constraint (23), a row that is too large (54), or a value that cannot be encoded.
///
/// ```
/// use payonce_engine::database::is_rejected_content;
///
/// let unsendable = sqlx::Error::Encode("a text with a zero byte".into());
/// assert!(is_rejected_content(&unsendable));
/// assert!(!is_rejected_content(&sqlx::Error::PoolTimedOut));
/// ```
pub fn is_rejected_content(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_)
    ) || has_sqlstate(error, &["22", "23", "54"])
}

/// Returns true if one of several rows that were written together may be to blame, and the others may succeed without it.
///
/// ```no_run
/// # async fn insert(connection: &mut sqlx::PgConnection, skus: &[String]) -> sqlx::Result<()> {
/// use payonce_engine::database::may_be_one_items_fault;
///
/// let statement = "insert into orders (sku) select * from unnest($1::text[])";
/// let together = sqlx::query(statement).bind(skus).execute(&mut *connection).await;
/// match together {
///     // One of them is at fault. Alone, each of the others succeeds.
///     Err(error) if may_be_one_items_fault(&error) && skus.len() > 1 => {
///         for sku in skus {
///             drop(sqlx::query(statement).bind(std::slice::from_ref(sku)).execute(&mut *connection).await);
///         }
///     }
///     together => drop(together?),
/// }
/// # Ok(())
/// # }
/// ```
pub fn may_be_one_items_fault(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_)
    ) || has_sqlstate(error, &OF_AN_ITEM)
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, PgConnection, PgPool};

    use super::*;

    /// The last statement's error, on a connection of its own.
    async fn error_of(pool: &PgPool, statements: &'static str) -> sqlx::Error {
        let options = pool.connect_options();
        let mut connection = PgConnection::connect_with(&options)
            .await
            .expect("connected");
        let ran = sqlx::raw_sql(statements).execute(&mut connection).await;
        ran.expect_err(statements)
    }

    #[sqlx::test(migrations = false)]
    async fn what_the_server_says_is_told_apart(pool: PgPool) {
        for statements in [
            "set default_transaction_read_only = on; commit; create table t (a int)",
            "execute nobody_prepared_this",
            "prepare a as select 1; prepare a as select 1",
            "select pg_terminate_backend(pg_backend_pid())",
        ] {
            let error = error_of(&pool, statements).await;
            assert!(is_wrong_connection(&error), "{statements}: {error}");
            assert!(is_transient(&error), "{statements}: {error}");
            assert!(!may_be_one_items_fault(&error), "{statements}: {error}");
        }
        for statements in [
            "select 1/0",
            "create temp table t (a int primary key); insert into t values (1), (1)",
        ] {
            let error = error_of(&pool, statements).await;
            assert!(may_be_one_items_fault(&error), "{statements}: {error}");
            assert!(!is_wrong_connection(&error), "{statements}: {error}");
            assert!(!is_transient(&error), "{statements}: {error}");
        }
        let error = error_of(&pool, "set statement_timeout = 1; select pg_sleep(10)").await;
        assert!(is_too_slow(&error) && is_transient(&error), "{error}");
        assert!(
            !is_wrong_connection(&error) && !may_be_one_items_fault(&error),
            "{error}"
        );
        let error = error_of(&pool, "select nothing_there").await;
        assert!(
            !is_transient(&error) && !is_wrong_connection(&error),
            "{error}"
        );
    }

    #[sqlx::test(migrations = false)]
    async fn what_a_lost_node_of_a_cluster_did_is_not_known(pool: PgPool) {
        let statements = "do $$ begin raise exception 'lost' using errcode = 'XX000'; end $$";
        let error = error_of(&pool, statements).await;
        assert!(
            may_have_committed(&error) && is_transient(&error),
            "{error}"
        );
    }

    #[sqlx::test(migrations = false)]
    async fn a_cached_plan_of_an_older_table_is_the_connections_fault(pool: PgPool) {
        let mut connection = pool.acquire().await.expect("a connection");
        let changed = async {
            sqlx::raw_sql("create table t (a int)")
                .execute(&mut *connection)
                .await?;
            sqlx::query("select * from t")
                .fetch_all(&mut *connection)
                .await?;
            sqlx::raw_sql("alter table t alter a type text")
                .execute(&mut *connection)
                .await?;
            sqlx::query("select * from t")
                .fetch_all(&mut *connection)
                .await
        };
        let error = changed.await.map(drop).expect_err("the plan is of no use");
        assert!(is_wrong_connection(&error), "{error}");
        assert!(!may_have_committed(&error));
    }
}
