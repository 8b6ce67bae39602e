//! Which secrets signed the fingerprints of a database.

use chrono::{DateTime, Utc};

use super::engine::Engine;
use super::error::IdempotencyError;
use super::store;
use crate::database::{self, Bounded};

/// A secret that signed fingerprints of the database and that this process does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSecret {
    /// Eight hexadecimal digits that tell it from other secrets, and nothing else of it.
    pub id: String,
    /// When another secret took over the signing; `None` while it signs.
    pub retired_at: Option<DateTime<Utc>>,
}

/// Why an engine's secrets do not fit its database.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// Keys of this database are signed by other secrets: each repeated request would be unreadable. Final.
    #[error(
        "the fingerprints of this database are signed by another secret (its id is {}, ours are {})",
        .unknown.iter().map(|secret| secret.id.as_str()).collect::<Vec<_>>().join(", "),
        .ours.join(", ")
    )]
    Other {
        /// Those that sign.
        unknown: Vec<UnknownSecret>,
        /// The ids of this engine's.
        ours: Vec<String>,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Database(#[from] IdempotencyError),
}

impl Engine {
    /// Notes that this engine's first secret signs the database's fingerprints from now on.
    ///
    /// Returns the retired secrets that this engine does not have: what they signed cannot be compared, so they should be kept
    /// for as long as keys are remembered.
    ///
    /// # Errors
    ///
    /// [`SecretsError::Other`] where a secret signs that this engine does not have. Nothing is noted then.
    pub async fn register_secrets(&self) -> Result<Vec<UnknownSecret>, SecretsError> {
        let engine = self.clone();
        self.run(async move { engine.register().await }).await?
    }

    async fn register(&self) -> Result<Vec<UnknownSecret>, SecretsError> {
        let ours = self.secret_ids();
        let mut tx = database::begin(self.pool())
            .await
            .map_err(IdempotencyError::from)?;
        let mut unknown = store::list_secrets(&mut tx)
            .bounded()
            .await
            .map_err(IdempotencyError::from)?;
        unknown.retain(|secret| !ours.contains(&secret.id));
        if unknown.iter().any(|secret| secret.retired_at.is_none()) {
            unknown.retain(|secret| secret.retired_at.is_none());
            return Err(SecretsError::Other { unknown, ours });
        }
        store::note_secrets(&mut tx, &ours)
            .bounded()
            .await
            .map_err(IdempotencyError::from)?;
        tx.commit().await.map_err(IdempotencyError::from)?;
        Ok(unknown)
    }
}
