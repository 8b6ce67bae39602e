//! The migrations of the engine's tables, which are compiled in.

use std::sync::LazyLock;

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};

/// Creates the engine's tables. It records what was applied in a table of its own (`_payonce_engine_migrations`), so a service's
/// own migrator can work on the same database.
///
/// ```no_run
/// # use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
/// // A test's database gets the engine's tables.
/// #[sqlx::test(migrator = "payonce_engine::MIGRATOR")]
/// async fn an_order_is_placed_once(_: PgPoolOptions, database: PgConnectOptions) {
///     // …
/// #   drop(database);
/// }
/// ```
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!();
    migrator.dangerous_set_table_name("_payonce_engine_migrations");
    migrator
});

/// Creates the engine's tables if they are missing. Programs that start at once take turns.
///
/// ```no_run
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let database = std::env::var("DATABASE_URL")?.parse()?;
/// let pool = payonce_engine::database::pool_options().connect_with(database).await?;
/// payonce_engine::migrate(&pool).await?;
/// // And then the service's own: `sqlx::migrate!().run(&pool)`.
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The database's error, or a migration that was changed after it had been applied.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATOR.run(pool).await
}
