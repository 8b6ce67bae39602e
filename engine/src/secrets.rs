//! The check of which secrets signed a database's fingerprints.

use sqlx::PgConnection;

use super::engine::Engine;
use super::error::IdempotencyError;
use super::fingerprint::{FingerprintSecrets, Signer};
use super::store::{self, UnknownSecret};
use crate::database::{self, Bounded};

/// Why an engine's secrets do not match its database.
///
/// ```
/// use payonce_engine::records::{SecretsError, UnknownSecret};
///
/// let unknown = vec![UnknownSecret { id: "1f2e3d4c".to_owned(), retired_at: None }];
/// let error = SecretsError::UnknownSigner { unknown, ours: vec!["0a1b2c3d".to_owned()] };
/// assert!(error.to_string().contains("its id is 1f2e3d4c, ours are 0a1b2c3d"));
/// ```
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// Keys of this database are signed by other secrets: each repeated request would be unreadable. Final.
    #[error(
        "the fingerprints of this database are signed by another secret (its id is {}, ours are {})",
        .unknown.iter().map(|secret| secret.id.as_str()).collect::<Vec<_>>().join(", "),
        .ours.join(", ")
    )]
    UnknownSigner {
        /// The secrets that sign.
        unknown: Vec<UnknownSecret>,
        /// The ids of this engine's secrets.
        ours: Vec<String>,
    },
    /// The database could not be reached, or returned an error.
    #[error(transparent)]
    Database(#[from] IdempotencyError),
}

/// A comparison of secrets with those that signed a database's fingerprints. [`ComparedSecrets::read`] has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedSecrets {
    /// The ids of this process's secrets; the first signs.
    pub ours: Vec<String>,
    /// The database's secrets that this process does not have, oldest first.
    pub unknown: Vec<UnknownSecret>,
    /// True if the database has recorded one of this process's secrets.
    pub has_recorded_ours: bool,
}

impl ComparedSecrets {
    /// Reads which secrets a database has recorded. It writes nothing. Pass `None` if there are no secrets to compare.
    ///
    /// ```no_run
    /// # async fn look(pool: sqlx::PgPool) -> sqlx::Result<()> {
    /// use payonce_engine::FingerprintSecrets;
    /// use payonce_engine::database::acquire;
    /// use payonce_engine::records::ComparedSecrets;
    ///
    /// let secrets = FingerprintSecrets::new("the configured one");
    /// let compared = ComparedSecrets::read(&mut *acquire(&pool).await?, Some(&secrets)).await?;
    /// for secret in compared.other_signers() {
    ///     println!("this database's fingerprints are signed by {}, not by {:?}", secret.id, compared.ours);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The database's error. It is 42P01 if the schema is older than the record of secrets.
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
        let has_recorded_ours = noted.iter().any(is_ours);
        let unknown = noted.into_iter().filter(|secret| !is_ours(secret));
        let unknown = unknown.collect();
        Self {
            ours,
            unknown,
            has_recorded_ours,
        }
    }

    /// The secrets that sign and that this process does not have. Requests that they signed cannot be compared.
    ///
    /// ```
    /// use payonce_engine::records::{ComparedSecrets, UnknownSecret};
    ///
    /// let retired = UnknownSecret { id: "1f2e3d4c".to_owned(), retired_at: Some(chrono::Utc::now()) };
    /// let signing = UnknownSecret { id: "5b6a7988".to_owned(), retired_at: None };
    /// let compared = ComparedSecrets {
    ///     ours: vec!["0a1b2c3d".to_owned()],
    ///     unknown: vec![retired, signing.clone()],
    ///     has_recorded_ours: false,
    /// };
    /// assert_eq!(compared.other_signers(), [signing]);
    /// ```
    pub fn other_signers(&self) -> Vec<UnknownSecret> {
        let unknown = self.unknown.iter();
        let signing = unknown.filter(|secret| secret.retired_at.is_none());
        signing.cloned().collect()
    }
}

impl Engine {
    /// Records that this engine's first secret now signs the database's fingerprints.
    ///
    /// Returns the retired secrets that this engine does not have. Requests that they signed cannot be compared, so the secrets
    /// should be kept for as long as keys are remembered.
    ///
    /// ```no_run
    /// # async fn start(engine: payonce_engine::Engine) -> Result<(), payonce_engine::records::SecretsError> {
    /// // Once, when the service starts.
    /// for retired in engine.register_secrets().await? {
    ///     if retired.is_needed(engine.config().ttl) {
    ///         tracing::warn!(id = retired.id, "keys that this secret signed are still remembered: configure it, too");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SecretsError::UnknownSigner`] if a secret signs that this engine does not have. Nothing is recorded then.
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
            return Err(SecretsError::UnknownSigner { unknown, ours });
        }
        store::note_secrets(&mut tx, &compared.ours)
            .bounded()
            .await
            .map_err(IdempotencyError::from)?;
        tx.commit().await.map_err(IdempotencyError::from)?;
        Ok(compared.unknown)
    }
}
