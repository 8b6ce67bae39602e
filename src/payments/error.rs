//! Why a request has no stored answer. Nothing of such a request is left behind, unless the variant says so.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::idempotency::{IdempotencyError, Mismatch};
use crate::input::FieldError;

/// Why a request was refused, or could not be served.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// Fields are wrong, as far as can only be said with the payment at hand.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The merchant has no such payment or refund.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The first request is still at work.
    #[error("the first request with this key is still at work")]
    InUse {
        /// When to come back.
        retry_after: Duration,
    },
    /// Another request was made under this key.
    #[error("the key was used with another request")]
    Reused(Mismatch),
    /// The key's record is past its time, but what it made is known.
    #[error("the key has expired; it made {resource_id}")]
    Expired {
        /// What the key made.
        resource_id: String,
        /// When.
        created_at: DateTime<Utc>,
    },
    /// Nothing reached the gateway. The claim was removed.
    #[error("the gateway cannot be reached")]
    GatewayUnavailable,
    /// The engine or the database failed.
    #[error(transparent)]
    Engine(IdempotencyError),
}

impl From<sqlx::Error> for PaymentError {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<IdempotencyError> for PaymentError {
    fn from(error: IdempotencyError) -> Self {
        match error {
            // A plan's own refusal comes back as itself.
            IdempotencyError::Work(cause) => match cause.downcast::<Self>() {
                Ok(error) => *error,
                Err(cause) => Self::Engine(IdempotencyError::Work(cause)),
            },
            error => Self::Engine(error),
        }
    }
}
