//! Turns problems into responses, and errors into problems. The cause of an internal error goes to the log.

use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use chrono::SecondsFormat;

use crate::database::{is_too_slow, is_transient};
use crate::gateway::Refusal;
use crate::idempotency::{IdempotencyError, Mismatch};
use crate::input::InputError;
use crate::merchants::{Move, is_refused_by_a_move};
use crate::payments::PaymentError;
use crate::problem::{CONTENT_TYPE, Code, HasCharged, Problem};

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.slug(), self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((header::CONTENT_TYPE, CONTENT_TYPE));
        if let Some(seconds) = self.retry_after_seconds {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if self.code == Code::Unauthorized {
            response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        if self.code == Code::RequestTimeout {
            // The rest of the body is not awaited (RFC 9110, 15.5.9).
            response.force_close();
        }
        response.body(self.body())
    }
}

/// The refusal of a request that exceeds its merchant's rate limit. It is accepted again after `wait`.
pub(super) fn rate_limited(wait: Duration) -> Problem {
    metrics::counter!("payonce_rate_limited_total").increment(1);
    let problem = Problem::new(Code::RateLimited, Code::RateLimited.title());
    // Rounded up, so that a client that waits this long is accepted.
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    Problem {
        retry_after_seconds: u64::try_from(seconds).ok(),
        ..problem
    }
}

/// The refusal of a request whose merchant is moving to another cell, or is served by one.
pub(super) fn not_served_here(moving: &Move) -> Problem {
    let detail = format!(
        "the merchant {}; nothing was charged by this request",
        moving.describe()
    );
    Problem::new(Code::DatabaseUnavailable, detail)
}

impl From<InputError> for Problem {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Malformed(_) => Self::new(Code::MalformedJson, error.to_string()),
            InputError::Invalid(errors) => invalid(&errors),
        }
    }
}

fn invalid(errors: &[crate::input::FieldError]) -> Problem {
    let detail = match errors {
        [one] => format!("{} {}", one.field, one.message),
        many => format!("{} fields are not valid", many.len()),
    };
    let errors = errors
        .iter()
        .map(|error| serde_json::json!({"field": error.field, "message": error.message}));
    Problem::new(Code::ValidationFailed, detail).with("errors", errors.collect::<Vec<_>>())
}

impl From<PaymentError> for Problem {
    fn from(error: PaymentError) -> Self {
        let detail = error.to_string();
        match error {
            PaymentError::Invalid(errors) => invalid(&errors),
            PaymentError::NotFound(_) => Self::new(Code::NotFound, detail),
            PaymentError::InProgress { retry_after } => {
                let problem = Self::new(Code::IdempotencyKeyInUse, detail);
                Self {
                    retry_after_seconds: Some(retry_after.as_secs().max(1)),
                    ..problem
                }
            }
            PaymentError::Mismatch { mismatch, .. } => reused(&mismatch, detail),
            PaymentError::Expired {
                resource_id,
                created_at,
                ..
            } => {
                let created_at = created_at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                Self::new(Code::IdempotencyKeyExpired, detail)
                    .with("resourceId", resource_id)
                    .with("createdAt", created_at)
            }
            PaymentError::Busy(_) => Self::new(Code::PaymentBusy, detail),
            PaymentError::GatewayUnavailable => Self::new(Code::GatewayUnavailable, detail),
            PaymentError::GatewayRefused(refusal) => refused(refusal),
            PaymentError::GatewayMisconfigured { .. } => {
                Self::new(Code::GatewayMisconfigured, detail)
            }
            PaymentError::Engine(error) => error.into(),
        }
    }
}

fn refused(refusal: Refusal) -> Problem {
    Problem::new(Code::GatewayRefused, refusal.message)
        .with("gatewayCode", refusal.code)
        .with_some("param", refusal.param)
}

/// The refusal of a request with a key. It also says whether the key has paid.
pub(super) fn keyed(error: PaymentError) -> Problem {
    let charged = error.charged();
    Problem {
        charged,
        ..error.into()
    }
}

/// Number of hexadecimal digits of a fingerprint that are shown: enough to tell two apart.
pub(super) const SHOWN_DIGITS: usize = 16;

fn reused(mismatch: &Mismatch, detail: String) -> Problem {
    let shown = |hash: &str| hash.get(..SHOWN_DIGITS).unwrap_or_default().to_owned();
    Problem::new(Code::IdempotencyKeyReused, detail)
        .with("expectedHash", shown(&mismatch.expected_hash))
        .with("actualHash", shown(&mismatch.actual_hash))
        .with("changed", mismatch.changed.clone())
}

impl From<IdempotencyError> for Problem {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::FingerprintMismatch {
                expected_hash,
                actual_hash,
                changed,
            } => reused(
                &Mismatch {
                    expected_hash,
                    actual_hash,
                    changed,
                },
                Code::IdempotencyKeyReused.title().to_owned(),
            ),
            IdempotencyError::InProgress { retry_after } => {
                PaymentError::InProgress { retry_after }.into()
            }
            IdempotencyError::Expired {
                resource_id,
                created_at,
            } => PaymentError::Expired {
                resource_id,
                created_at,
                charged: HasCharged::Unknown,
            }
            .into(),
            IdempotencyError::OutcomeUnknown(cause) => {
                tracing::error!(error = %chain(&cause), "the database was lost while an outcome was being stored");
                Self::new(Code::OutcomeUnknown, Code::OutcomeUnknown.title())
            }
            IdempotencyError::Unreadable => {
                tracing::error!(
                    "a key was signed by a secret, or in a version, that this service does not know: \
                     add the secret to PAYONCE_FINGERPRINT_SECRET, or upgrade this node"
                );
                Self::new(
                    Code::OutcomeUnknown,
                    "this service cannot read the key's record at the moment",
                )
            }
            IdempotencyError::Overloaded => Self::new(Code::Overloaded, Code::Overloaded.title()),
            error if error.database_error().is_some_and(is_refused_by_a_move) => {
                // A node sees a move a little later than the database.
                tracing::info!("the database refused a write of a merchant that is moving");
                let detail = "the merchant is being moved to another cell; nothing was charged by this request";
                Self::new(Code::DatabaseUnavailable, detail)
            }
            error if error.database_error().is_some_and(is_too_slow) => {
                tracing::error!(error = %chain(&error), "the database did not finish in time");
                let detail = "the database was reached, and did not do its work in time";
                Self::new(Code::DatabaseUnavailable, detail)
            }
            error if error.database_error().is_some_and(is_transient) => {
                tracing::error!(error = %chain(&error), "the database cannot be reached");
                Self::new(Code::DatabaseUnavailable, Code::DatabaseUnavailable.title())
            }
            error => {
                tracing::error!(error = %chain(&error), "a request failed with an internal error");
                Self::new(Code::Internal, Code::Internal.title())
            }
        }
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
