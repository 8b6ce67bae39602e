//! Why a request has no stored answer. Nothing of such a request is left behind, unless the variant says so.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::call::NothingDone;
use crate::database::is_lock_timeout;
use crate::gateway::Refusal;
use crate::idempotency::{IdempotencyError, Mismatch, is_transient};
use crate::input::FieldError;
use crate::problem::Charged;

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
    Reused {
        /// What differs.
        mismatch: Mismatch,
        /// What the first request's payment came to.
        charged: Charged,
    },
    /// The key's record is past its time, but what it made is known.
    #[error("the key has expired; it made {resource_id}")]
    Expired {
        /// What the key made.
        resource_id: String,
        /// When.
        created_at: DateTime<Utc>,
        /// What it came to.
        charged: Charged,
    },
    /// Another capture, cancel or refund of the payment is under way. Nothing was stored.
    #[error("{0} is under way")]
    Busy(&'static str),
    /// Nothing reached the gateway. The claim was removed.
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
        /// False where the claim was removed, so that certainly nothing was charged under the key.
        may_have_charged: bool,
    },
    /// The engine or the database failed.
    #[error(transparent)]
    Engine(IdempotencyError),
}

impl PaymentError {
    /// Why a payment's row could not be locked: where somebody holds it, the payment is busy.
    pub(super) fn of_a_lock(error: sqlx::Error) -> Self {
        if is_lock_timeout(&error) {
            Self::Busy("another request for the payment")
        } else {
            error.into()
        }
    }

    /// What is known of the key of a request that got this error; `None` where its key was not looked at.
    pub fn charged(&self) -> Option<Charged> {
        match self {
            Self::Reused { charged, .. } | Self::Expired { charged, .. } => Some(*charged),
            Self::InUse { .. } => Some(Charged::Unknown),
            Self::Invalid(_)
            | Self::NotFound(_)
            | Self::Busy(_)
            | Self::GatewayUnavailable
            | Self::GatewayRefused(_) => Some(Charged::No),
            Self::GatewayMisconfigured {
                may_have_charged, ..
            } => Some(match may_have_charged {
                true => Charged::Unknown,
                false => Charged::No,
            }),
            Self::Engine(IdempotencyError::Overloaded) => None,
            Self::Engine(error) if error.database_error().is_some_and(is_transient) => None,
            Self::Engine(_) => Some(Charged::Unknown),
        }
    }

    /// The error as a plan's or a guard's own refusal, which comes back as itself.
    pub(crate) fn into_engine(self) -> IdempotencyError {
        match self {
            Self::Engine(error) => error,
            error => IdempotencyError::Work(Box::new(error)),
        }
    }

    /// The same for a request that holds a claim: a database that cannot be asked then says nothing of the outcome.
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

impl From<NothingDone> for PaymentError {
    fn from(why: NothingDone) -> Self {
        match why {
            NothingDone::Unavailable => Self::GatewayUnavailable,
            NothingDone::Refused(refusal) => Self::GatewayRefused(refusal),
            NothingDone::Misconfigured { reason } => Self::GatewayMisconfigured {
                reason,
                may_have_charged: false,
            },
        }
    }
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
