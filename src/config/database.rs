//! The database, which every program needs.

use clap::Args;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::value::{is_example, secret};
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

    /// Returns true if the password is one of the published examples.
    pub(crate) fn has_example_password(&self) -> bool {
        let url = Url::parse(self.database_url.expose_secret()).ok();
        let password = url.as_ref().and_then(Url::password).map(SecretString::from);
        password.as_ref().is_some_and(is_example)
    }
}
