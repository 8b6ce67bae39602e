//! A record is what the database remembers of one idempotency key.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::key::ScopedKey;

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Somebody holds a claim on it, or died holding one.
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

    /// Reads a state; `None` where it is none.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Processing, Self::Completed, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// An answer as it is kept: the bytes that were stored are the bytes that are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    /// The HTTP status, 100–599.
    pub status: u16,
    /// Names and values of the headers that belong to the answer, e.g. `content-type` and `location`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl StoredResponse {
    /// An answer with a JSON body, which is serialised here, once.
    pub fn json(status: u16, body: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Bytes::from(serde_json::to_vec(body)?),
        })
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// How work ended. Both are final, stored and replayed; a failure undoes what the work wrote.
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
