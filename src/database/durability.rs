//! Whether what the database confirms lasts.

use sqlx::PgPool;

use super::{Bounded, DatabaseError, acquire};

/// Refuses a database that would lose what it confirmed, or warns of it where that is allowed.
///
/// `synchronous_commit` is asked of a session of this pool, so that one turned off by the URL or
/// the role is seen, too.
pub async fn check_durability(pool: &PgPool, allow_unsafe: bool) -> Result<(), DatabaseError> {
    let mut connection = acquire(pool).await?;
    let on = sqlx::query!(
        r#"
        select
            current_setting('fsync') <> 'off' as "fsync!",
            current_setting('full_page_writes') <> 'off' as "full_page_writes!",
            current_setting('synchronous_commit') <> 'off' as "synchronous_commit!"
        "#,
    )
    .fetch_one(&mut *connection)
    .bounded()
    .await?;
    let settings = [
        ("fsync", on.fsync),
        ("full_page_writes", on.full_page_writes),
        ("synchronous_commit", on.synchronous_commit),
    ];
    for (setting, _) in settings.into_iter().filter(|(_, is_on)| !is_on) {
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

#[cfg(test)]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    use super::*;
    use crate::database::pool_options;

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
}
