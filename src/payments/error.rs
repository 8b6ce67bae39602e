//! The errors of requests that get no stored answer. Nothing of such a request is stored, unless the variant says so.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::database::is_lock_timeout;
use crate::gateway::Refusal;
use crate::idempotency::{IdempotencyError, Mismatch, is_transient};
use crate::input::FieldError;
use crate::money::ArithmeticError;
use crate::problem::HasCharged;

/// Why a request was refused, or could not be served.
#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// Fields are wrong for this payment. What is wrong in any case is refused when the request is parsed.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// The merchant has no such payment or refund.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The first request is still in progress.
    #[error("the first request with this key is still in progress")]
    InProgress {
        /// When to try again.
        retry_after: Duration,
    },
    /// The key was used with another request.
    #[error("the key was used with another request")]
    Mismatch {
        /// The fields that differ.
        mismatch: Mismatch,
        /// Whether the first request's payment took or holds money.
        charged: HasCharged,
    },
    /// The key has expired, but the payment or refund that it made is known.
    #[error("the key has expired; it made {resource_id}")]
    Expired {
        /// The id of the payment or refund.
        resource_id: String,
        /// When.
        created_at: DateTime<Utc>,
        /// Whether it took or holds money.
        charged: HasCharged,
    },
    /// Another capture, cancel or refund of the payment is in progress. Nothing was stored.
    #[error("{0} is in progress")]
    Busy(&'static str),
    /// The request did not reach the gateway. The claim was removed.
    #[error("the gateway cannot be reached")]
    GatewayUnavailable,
    /// The gateway found the request's content wrong. The claim was removed, so that a corrected request may use the key.
    #[error("{}", .0.message)]
    GatewayRefused(Refusal),
    /// The gateway refuses this service, or the payment's gateway is not set up in this process.
    #[error("the gateway does not take requests of this service")]
    GatewayMisconfigured {
        /// For the log and the operator.
        reason: String,
        /// False if the claim was removed, so that certainly nothing was charged under the key.
        may_have_charged: bool,
    },
    /// The engine or the database failed.
    #[error(transparent)]
    Engine(IdempotencyError),
}

impl PaymentError {
    /// The error for a payment's row that could not be locked. If another transaction holds it, the payment is busy.
    pub(super) fn of_a_lock(error: sqlx::Error) -> Self {
        if is_lock_timeout(&error) {
            Self::Busy("another request for the payment")
        } else {
            error.into()
        }
    }

    /// Whether a request that got this error took or holds money. Returns `None` if its key was not looked up.
    pub fn charged(&self) -> Option<HasCharged> {
        match self {
            Self::Mismatch { charged, .. } | Self::Expired { charged, .. } => Some(*charged),
            Self::InProgress { .. } => Some(HasCharged::Unknown),
            Self::Invalid(_)
            | Self::NotFound(_)
            | Self::Busy(_)
            | Self::GatewayUnavailable
            | Self::GatewayRefused(_) => Some(HasCharged::No),
            Self::GatewayMisconfigured {
                may_have_charged, ..
            } => Some(match may_have_charged {
                true => HasCharged::Unknown,
                false => HasCharged::No,
            }),
            Self::Engine(IdempotencyError::Overloaded) => None,
            Self::Engine(error) if error.database_error().is_some_and(is_transient) => None,
            Self::Engine(_) => Some(HasCharged::Unknown),
        }
    }

    /// The error as one of a plan or a guard. The engine returns it unchanged.
    pub(super) fn into_engine(self) -> IdempotencyError {
        match self {
            Self::Engine(error) => error,
            error => IdempotencyError::Work(Box::new(error)),
        }
    }

    /// The same error for a request that holds a claim. If the database cannot be asked, the outcome is unknown.
    pub(super) fn after_claim(self) -> Self {
        match self {
            Self::Engine(error)
                if matches!(error, IdempotencyError::Overloaded)
                    || error.database_error().is_some_and(is_transient) =>
            {
                Self::Engine(IdempotencyError::OutcomeUnknown(Box::new(error)))
            }
            error => error,
        }
    }
}

impl From<sqlx::Error> for PaymentError {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl From<ArithmeticError> for PaymentError {
    fn from(error: ArithmeticError) -> Self {
        sqlx::Error::from(error).into()
    }
}

impl From<IdempotencyError> for PaymentError {
    fn from(error: IdempotencyError) -> Self {
        match error {
            // The error of a plan or a guard.
            IdempotencyError::Work(cause) => match cause.downcast::<Self>() {
                Ok(error) => *error,
                Err(cause) => Self::Engine(IdempotencyError::Work(cause)),
            },
            error => Self::Engine(error),
        }
    }
}
