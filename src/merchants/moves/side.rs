//! One of the two databases of a move.

use secrecy::SecretString;
use sqlx::PgConnection;

use super::error::MoveError;
use super::store;
use super::tables::TABLES;
use crate::MIGRATOR;
use crate::database::{self, DatabaseError, DatabaseSettings};

/// A database of a move. Once it is checked, no other move uses it.
pub(super) struct Side {
    /// In messages.
    pub(super) name: &'static str,
    url: SecretString,
    /// Makes the short changes, and holds the lock of whoever moves merchants.
    pub(super) control: PgConnection,
}

impl Side {
    /// Connects to the database that the merchant leaves.
    pub(super) async fn source(settings: &DatabaseSettings) -> Result<Self, MoveError> {
        Self::connect("the source", settings).await
    }

    /// Connects to the database that it goes to.
    pub(super) async fn destination(settings: &DatabaseSettings) -> Result<Self, MoveError> {
        let connected = Self::connect("the destination", settings).await;
        connected.map_err(|error| match error {
            // The error names the setting of every other program.
            MoveError::Open {
                source: DatabaseError::Configuration(why),
                ..
            } => MoveError::DestinationUrl(why),
            error => error,
        })
    }

    /// Connects to a database that any program could work on.
    async fn connect(name: &'static str, settings: &DatabaseSettings) -> Result<Self, MoveError> {
        let failed = |source| MoveError::Open { side: name, source };
        let pool = database::connect(settings).await.map_err(failed)?;
        let is_durable = database::check_durability(&pool, settings.allow_unsafe).await;
        is_durable.map_err(failed)?;
        database::schema_is_current(&pool).await.map_err(failed)?;
        pool.close().await;
        let control = database::connect_once(&settings.url).await;
        Ok(Self {
            name,
            url: settings.url.clone(),
            control: control.map_err(failed)?,
        })
    }

    /// Equal for two sides of one database.
    pub(super) async fn identity(&mut self) -> Result<impl PartialEq + use<>, MoveError> {
        let identity = store::identity(&mut self.control).await;
        identity.map_err(|error| self.failed(error))
    }

    /// Checks whether merchants can be moved from or to it, and takes the lock.
    pub(super) async fn check(&mut self) -> Result<(), MoveError> {
        let side = self.name;
        let asked = store::is_citus(&mut self.control).await;
        if asked.map_err(|error| self.failed(error))? {
            return Err(MoveError::Citus { side });
        }
        let applied = store::migrations(&mut self.control).await;
        let mut applied = applied.map_err(|error| self.failed(error))?.into_iter();
        let is_unknown = |version: &i64| {
            !MIGRATOR
                .iter()
                .any(|migration| migration.version == *version)
        };
        if let Some(migration) = applied.find(is_unknown) {
            return Err(MoveError::NewerSchema { side, migration });
        }
        let tables = TABLES.map(|table| table.name.to_owned());
        let not_owned = store::not_owned(&mut self.control, &tables).await;
        if let Some((role, table)) = not_owned.map_err(|error| self.failed(error))? {
            return Err(MoveError::NotTheOwner { side, role, table });
        }
        let is_locked = store::try_lock(&mut self.control).await;
        match is_locked.map_err(|error| self.failed(error))? {
            true => Ok(()),
            false => Err(MoveError::AnotherMove { side }),
        }
    }

    /// Opens a session of its own for what takes long.
    pub(super) async fn session(&self) -> Result<PgConnection, MoveError> {
        let opened = database::connect_once(&self.url).await;
        opened.map_err(|source| MoveError::Open {
            side: self.name,
            source,
        })
    }

    pub(super) fn failed(&self, source: sqlx::Error) -> MoveError {
        MoveError::Database {
            side: self.name,
            source,
        }
    }
}
