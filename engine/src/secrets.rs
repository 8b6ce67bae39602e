//! Which secrets signed the fingerprints of a database.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::engine::Engine;
use super::error::IdempotencyError;
use super::fingerprint::{FingerprintSecrets, Signer};
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

/// Secrets beside those that a database's fingerprints are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedSecrets {
    /// The ids of ours; the first signs.
    pub ours: Vec<String>,
    /// Those of the database that are not ours, oldest first.
    pub unknown: Vec<UnknownSecret>,
    /// True if the database has noted one of ours.
    pub is_ours_noted: bool,
}

impl ComparedSecrets {
    /// Reads which secrets a database has noted. It writes nothing. Pass `None` if there are no secrets to compare.
    ///
    /// # Errors
    ///
    /// The database's, also where its schema is older than its note of secrets (42P01).
    pub async fn read(
        connection: &mut PgConnection,
        secrets: Option<&FingerprintSecrets>,
    ) -> sqlx::Result<Self> {
        let ours = secrets.map(|secrets| Signer::new(secrets).secret_ids());
        let noted = store::list_secrets(connection).bounded().await?;
        Ok(Self::of(ours.unwrap_or_default(), noted))
    }

    fn of(ours: Vec<String>, noted: Vec<UnknownSecret>) -> Self {
        let is_ours = |secret: &UnknownSecret| ours.contains(&secret.id);
        let is_ours_noted = noted.iter().any(is_ours);
        let unknown = noted.into_iter().filter(|secret| !is_ours(secret));
        let unknown = unknown.collect();
        Self {
            ours,
            unknown,
            is_ours_noted,
        }
    }

    /// Those that sign and are not ours: with them, repeated requests cannot be compared.
    pub fn other_signers(&self) -> Vec<UnknownSecret> {
        let unknown = self.unknown.iter();
        let signing = unknown.filter(|secret| secret.retired_at.is_none());
        signing.cloned().collect()
    }
}

impl UnknownSecret {
    /// Returns true if keys that it signed may still be remembered, which they are for `lifetime`.
    pub fn is_needed(&self, lifetime: Duration) -> bool {
        let since = self.retired_at.map(|at| Utc::now() - at);
        since.is_none_or(|since| since.to_std().is_ok_and(|since| since < lifetime))
    }
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
        let mut tx = database::begin(self.pool())
            .await
            .map_err(IdempotencyError::from)?;
        let noted = store::list_secrets(&mut tx)
            .bounded()
            .await
            .map_err(IdempotencyError::from)?;
        let compared = ComparedSecrets::of(self.secret_ids(), noted);
        let unknown = compared.other_signers();
        if !unknown.is_empty() {
            let ours = compared.ours;
            return Err(SecretsError::Other { unknown, ours });
        }
        store::note_secrets(&mut tx, &compared.ours)
            .bounded()
            .await
            .map_err(IdempotencyError::from)?;
        tx.commit().await.map_err(IdempotencyError::from)?;
        Ok(compared.unknown)
    }
}
