//! The database, which every program needs.

use clap::Args;
use secrecy::SecretString;

use super::value::secret;
use crate::database::DatabaseSettings;

/// Where the database is.
#[derive(Clone, Debug, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL 14 or later, as postgres://user:password@host:port/database.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    #[arg(value_parser = secret)]
    pub database_url: SecretString,
    /// Accept a database with fsync, full_page_writes or synchronous_commit off, which may lose what it has confirmed.
    #[arg(long)]
    pub allow_unsafe_database: bool,
}

impl DatabaseArgs {
    /// The settings of a pool of at most `max_connections`.
    pub fn settings(&self, max_connections: u32) -> DatabaseSettings {
        DatabaseSettings {
            url: self.database_url.clone(),
            max_connections,
            allow_unsafe: self.allow_unsafe_database,
        }
    }
}
