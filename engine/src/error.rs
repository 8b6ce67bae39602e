//! The engine's errors, by what the caller can do about them.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::key::InvalidScope;

/// An error of the engine.
///
/// [`Engine::execute`](crate::Engine::execute), [`Engine::claim`](crate::Engine::claim) and [`Engine::enter`](crate::Engine::enter)
/// have stored nothing of a request that ends with an error other than [`IdempotencyError::OutcomeUnknown`]. Where a claim was taken
/// before ([`Engine::settle`](crate::Engine::settle)), an error leaves it as it is, and another owner takes it over once its lease has
/// expired.
///
/// ```
/// use payonce_engine::{IdempotencyError, is_transient};
///
/// /// Whether the same request may be sent again, unchanged.
/// fn may_be_repeated(error: &IdempotencyError) -> bool {
///     match error {
///         IdempotencyError::InProgress { .. } | IdempotencyError::Overloaded | IdempotencyError::OutcomeUnknown(_) => true,
///         error => error.database_error().is_some_and(is_transient),
///     }
/// }
/// assert!(may_be_repeated(&IdempotencyError::Overloaded));
/// assert!(may_be_repeated(&IdempotencyError::Database(sqlx::Error::PoolTimedOut)));
/// assert!(!may_be_repeated(&IdempotencyError::Unreadable));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdempotencyError {
    /// Another request was made under this key. The first outcome stays. Final: a new request needs a new key.
    #[error(
        "the key was used with another request (fingerprint {expected_hash}, this one has {actual_hash})"
    )]
    FingerprintMismatch {
        /// The first request's fingerprint, 64 hexadecimal digits.
        expected_hash: String,
        /// This request's fingerprint, 64 hexadecimal digits.
        actual_hash: String,
        /// The paths of the fields that differ; never values.
        changed: Vec<String>,
    },
    /// The first request is still in progress. Retryable with the same key.
    #[error("the first request with this key is still in progress")]
    InProgress {
        /// When to try again.
        retry_after: Duration,
    },
    /// The record has expired, but the resource that it created is known. Final: a key never acts twice.
    #[error("the key has expired; it made {resource_id} at {created_at}")]
    Expired {
        /// The id of the resource that the key created.
        resource_id: String,
        /// When it was created.
        created_at: DateTime<Utc>,
    },
    /// The key's first request was signed by a secret, or in a version of the canonical form, that this process does not know, so
    /// that the two cannot be compared. Retryable with the same key, once this process has that secret or a newer version of this
    /// library.
    #[error("the key's first request was signed in a way that this process does not know")]
    Unreadable,
    /// The merchant or the operation of the key's scope is empty, or longer than the tables hold.
    #[error(transparent)]
    InvalidScope(#[from] InvalidScope),
    /// The request has no JSON form to fingerprint.
    #[error("the request has no canonical form")]
    Uncanonical(#[from] serde_json::Error),
    /// The caller's work failed with an error of its own. Its writes are undone: retryable with the same key.
    #[error("the work failed")]
    Work(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The work's answer could not be sent unchanged. Neither the answer nor the work's writes are stored: retryable with the same
    /// key, once the work returns another answer.
    #[error("the answer cannot be stored")]
    InvalidResponse(#[from] super::response::InvalidResponse),
    /// Too many requests are waiting already. Retryable with the same key.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The database could not be reached, or returned an error. [`is_transient`](crate::is_transient) says whether the same request
    /// may be sent again.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// Like [`IdempotencyError::Database`], for all requests of a group.
    #[error("the database failed")]
    Shared(#[source] std::sync::Arc<sqlx::Error>),
    /// The connection to the database was lost while the outcome was being committed, and the outcome could not be read back in
    /// time. The same request finds it later.
    #[error("the database was lost while the outcome was being stored")]
    OutcomeUnknown(#[source] Box<Self>),
    /// The work panicked, kept the transaction that it was lent, or deleted its own key. Its writes are undone. A future given to
    /// [`Engine::run`](crate::Engine::run) that panicked ends in this way, too, and what it had committed stays.
    #[error("the work did not end properly: {0}")]
    Aborted(&'static str),
}

impl IdempotencyError {
    /// Returns the database's error, or `None` if this is another error or the outcome of a commit is not known.
    ///
    /// ```
    /// use payonce_engine::IdempotencyError;
    ///
    /// let error = IdempotencyError::Database(sqlx::Error::PoolTimedOut);
    /// assert!(error.database_error().is_some());
    /// // The outcome is not known, so this is not a plain failure of the database.
    /// let unknown = IdempotencyError::OutcomeUnknown(Box::new(error));
    /// assert!(unknown.database_error().is_none());
    /// ```
    pub fn database_error(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            Self::Shared(error) => Some(error),
            _ => None,
        }
    }
}
