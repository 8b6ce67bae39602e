//! A record is what the database remembers of one idempotency key.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::error::IdempotencyError;
use super::key::ScopedKey;
use super::response::StoredResponse;

/// Where a key stands.
///
/// ```
/// use payonce_engine::records::KeyState;
///
/// assert_eq!(KeyState::Completed.as_str(), "COMPLETED");
/// assert_eq!(KeyState::from_name("PROCESSING"), Some(KeyState::Processing));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// A process holds a claim on it, or died holding one.
    Processing,
    /// Final: it succeeded.
    Completed,
    /// Final: it failed for good.
    Failed,
}

impl KeyState {
    /// The state as the database spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Processing => "PROCESSING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }

    /// Parses a state. Returns `None` if there is no such state.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Processing, Self::Completed, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// How work ended. Both are final, stored and replayed; a failure undoes what the work wrote.
///
/// ```
/// use payonce_engine::{Outcome, StoredResponse};
///
/// let in_stock = false;
/// let outcome = if in_stock {
///     Outcome::Completed(StoredResponse::json(201, &"ordered")?)
/// } else {
///     Outcome::Failed(StoredResponse::json(409, &"out of stock")?)
/// };
/// assert_eq!(outcome.response().status, 409);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Completed(StoredResponse),
    /// It can't be done, now or later under this key.
    Failed(StoredResponse),
}

impl Outcome {
    pub(crate) fn state(&self) -> KeyState {
        match self {
            Self::Completed(_) => KeyState::Completed,
            Self::Failed(_) => KeyState::Failed,
        }
    }

    /// The same, or why its answer cannot be stored.
    pub(crate) fn checked(self) -> Result<Self, IdempotencyError> {
        self.response().check()?;
        Ok(self)
    }

    /// The answer, by itself.
    pub fn into_response(self) -> StoredResponse {
        match self {
            Self::Completed(response) | Self::Failed(response) => response,
        }
    }

    /// The answer.
    pub fn response(&self) -> &StoredResponse {
        match self {
            Self::Completed(response) | Self::Failed(response) => response,
        }
    }
}

/// A final answer, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was stored.
    pub response: Arc<StoredResponse>,
    /// True when an earlier or concurrent request made it.
    pub replayed: bool,
    /// When the key is forgotten, by the database's clock.
    pub expires_at: DateTime<Utc>,
}

/// A record as an operator or its merchant sees it. The stored body is not in it.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The key in its scope.
    pub scope: ScopedKey,
    /// Where it stands.
    pub state: KeyState,
    /// The fingerprint of the request that used it first, 64 hexadecimal digits.
    pub fingerprint: String,
    /// How often its work was begun.
    pub attempt: i32,
    /// Until when the claim holds, while in `PROCESSING`.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// What it made.
    pub resource_id: Option<String>,
    /// The stored answer's status, once final.
    pub response_status: Option<u16>,
    /// Its first use.
    pub created_at: DateTime<Utc>,
    /// When it became final.
    pub completed_at: Option<DateTime<Utc>>,
    /// When it is forgotten.
    pub expires_at: DateTime<Utc>,
}
