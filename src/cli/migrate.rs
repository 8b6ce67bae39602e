//! `payonce migrate`.

use super::MAX_CONNECTIONS;
use super::output::print_line;
use crate::config::DatabaseArgs;
use crate::database;

/// Applies pending migrations.
pub(super) async fn run(args: &DatabaseArgs) -> anyhow::Result<()> {
    let pool = database::connect(&args.settings(MAX_CONNECTIONS)).await?;
    database::check_durability(&pool, args.allow_unsafe_database).await?;
    database::migrate(&pool).await?;
    print_line("the schema is up to date")
}
