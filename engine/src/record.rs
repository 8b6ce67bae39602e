//! A record is what the database remembers of one idempotency key.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::error::IdempotencyError;
use super::key::ScopedKey;
use super::response::StoredResponse;

/// The state of a key.
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
    /// Final: it failed.
    Failed,
}

impl KeyState {
    /// The name of the state in the database.
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

/// How the work ended. Both outcomes are final, stored and replayed.
///
/// [`Engine::execute`](crate::Engine::execute) undoes the work's writes on a failure. [`Engine::settle`](crate::Engine::settle) keeps
/// them, because the call that they record has happened.
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

    /// Returns the outcome unchanged, or an error if its answer cannot be stored.
    pub(crate) fn checked(self) -> Result<Self, IdempotencyError> {
        self.response().check()?;
        Ok(self)
    }

    /// Returns the answer alone.
    ///
    /// ```
    /// use payonce_engine::{Outcome, StoredResponse};
    ///
    /// let outcome = Outcome::Failed(StoredResponse::json(409, &"out of stock")?);
    /// assert_eq!(outcome.into_response().status, 409);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
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

/// A final answer, and whether it is a replay.
///
/// ```
/// use std::sync::Arc;
///
/// use payonce_engine::{Answer, StoredResponse};
///
/// /// The headers to send: those that were stored, and one that tells a replay from the first answer.
/// fn headers(answer: &Answer) -> Vec<(String, String)> {
///     let mut headers = answer.response.headers.clone();
///     headers.push(("idempotent-replayed".to_owned(), answer.replayed.to_string()));
///     headers
/// }
///
/// let response = Arc::new(StoredResponse::json(201, &"ordered")?);
/// let answer = Answer { response, replayed: true, expires_at: chrono::Utc::now() };
/// assert_eq!(headers(&answer)[1].1, "true");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The stored answer.
    pub response: Arc<StoredResponse>,
    /// True if an earlier or concurrent request produced it.
    pub replayed: bool,
    /// When the key expires, by the database's clock.
    pub expires_at: DateTime<Utc>,
}

/// A record for an operator or its merchant, without the stored body.
///
/// ```
/// use payonce_engine::records::{KeyRecord, KeyState};
///
/// /// How long the work took; `None` while it is not final.
/// fn duration(record: &KeyRecord) -> Option<chrono::TimeDelta> {
///     assert_eq!(record.completed_at.is_none(), record.state == KeyState::Processing);
///     record.completed_at.map(|completed_at| completed_at - record.created_at)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The key in its scope.
    pub scope: ScopedKey,
    /// Its state.
    pub state: KeyState,
    /// The fingerprint of the request that used it first, 64 hexadecimal digits.
    pub fingerprint: String,
    /// Number of times that its work was begun.
    pub attempt: i32,
    /// When the lease ends, if it is in `PROCESSING`.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// The id of the resource that it created or changed.
    pub resource_id: Option<String>,
    /// The stored answer's status, once final.
    pub response_status: Option<u16>,
    /// Its first use.
    pub created_at: DateTime<Utc>,
    /// When it became final.
    pub completed_at: Option<DateTime<Utc>>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
}
