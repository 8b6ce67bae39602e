//! The columns of a key and an answer that statements write and read.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::stored::{corrupt, stored_fingerprint, stored_response};
use crate::database::interval;
use crate::fingerprint::Fingerprint;
use crate::key::ScopedKey;
use crate::record::{Answer, Outcome};
use crate::response::StoredResponse;

/// The columns of a key that a first request writes, as in the example of [`grouped`](crate::grouped#claims-in-groups).
#[derive(Clone, Debug)]
pub struct NewKey {
    pub(crate) scope: ScopedKey,
    pub(crate) fingerprint: Arc<Fingerprint>,
    pub(crate) owner: Uuid,
    pub(crate) lock_timeout: Duration,
    pub(crate) ttl: Duration,
    /// An earlier attempt found a record that has expired.
    pub(crate) has_expired: bool,
}

/// A new key's columns, for a statement that inserts more than the key, as in the example of
/// [`grouped`](crate::grouped#claims-in-groups).
pub struct KeyColumns<'a> {
    /// The key in its scope.
    pub scope: &'a ScopedKey,
    /// The fingerprint of the request: 32 bytes.
    pub fingerprint: &'a [u8],
    /// The digests of the request's fields, as the text that `idempotency_keys.fingerprint_fields` holds.
    pub fingerprint_fields: &'a str,
}

impl NewKey {
    /// The columns to insert.
    pub fn columns(&self) -> KeyColumns<'_> {
        KeyColumns {
            scope: &self.scope,
            fingerprint: &self.fingerprint.hash,
            fingerprint_fields: &self.fingerprint.fields,
        }
    }

    /// The owner of the claim.
    pub fn owner(&self) -> Uuid {
        self.owner
    }

    /// The length of the lease.
    pub fn lock_timeout(&self) -> PgInterval {
        interval(self.lock_timeout)
    }

    /// How long the key is remembered.
    pub fn ttl(&self) -> PgInterval {
        interval(self.ttl)
    }
}

/// An outcome's columns, for a statement that settles more than the key.
///
/// ```
/// use payonce_engine::{Outcome, StoredResponse};
///
/// let outcome = Outcome::Failed(StoredResponse::json(409, &"out of stock")?);
/// let columns = outcome.columns();
/// assert_eq!((columns.state, columns.status), ("FAILED", 409));
/// assert_eq!(columns.headers, serde_json::json!([["content-type", "application/json"]]));
/// assert_eq!(columns.body, br#""out of stock""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub struct ResponseColumns<'a> {
    /// `COMPLETED` or `FAILED`.
    pub state: &'static str,
    /// The answer's HTTP status.
    pub status: i16,
    /// The answer's headers: `[["name", "value"], …]`.
    pub headers: Value,
    /// The answer's body.
    pub body: &'a [u8],
}

impl Outcome {
    /// The columns to write.
    pub fn columns(&self) -> ResponseColumns<'_> {
        let response = self.response();
        ResponseColumns {
            state: self.state().as_str(),
            status: status_column(response.status),
            headers: headers_column(response),
            body: &response.body,
        }
    }
}

/// A final key's columns, from a statement that looks for more than the key.
///
/// ```
/// use payonce_engine::grouped::{FINGERPRINT_VERSION, FoundColumns};
///
/// // As a statement reads them from a row of `idempotency_keys` in a final state.
/// let columns = FoundColumns {
///     fingerprint: Some(vec![0; 32]),
///     fingerprint_version: Some(FINGERPRINT_VERSION),
///     fingerprint_fields: Some(String::new()),
///     status: Some(201),
///     headers: Some(serde_json::json!([["location", "/orders/7"]])),
///     body: Some(b"ordered".to_vec()),
///     expires_at: chrono::Utc::now(),
///     seconds_left: 3600.0,
/// };
/// // `Attempt::Found` takes it.
/// let found = columns.read()?;
/// # drop(found);
/// # Ok::<(), sqlx::Error>(())
/// ```
pub struct FoundColumns {
    /// The fingerprint of the request: 32 bytes.
    pub fingerprint: Option<Vec<u8>>,
    /// The version of the canonical form that was signed.
    pub fingerprint_version: Option<i16>,
    /// The digests of the request's fields, as the text that `idempotency_keys.fingerprint_fields` holds.
    pub fingerprint_fields: Option<String>,
    /// The answer's HTTP status.
    pub status: Option<i16>,
    /// The answer's headers: `[["name", "value"], …]`.
    pub headers: Option<Value>,
    /// The answer's body.
    pub body: Option<Vec<u8>>,
    /// When the key expires.
    pub expires_at: DateTime<Utc>,
    /// Time until then from the statement's start, by the database's clock.
    pub seconds_left: f64,
}

impl FoundColumns {
    /// Reads the answer. The schema allows no final key without one.
    ///
    /// # Errors
    ///
    /// [`sqlx::Error::Decode`] if a column is missing or has a value that the schema does not allow.
    pub fn read(self) -> sqlx::Result<FoundKey> {
        let fingerprint = self.fingerprint.ok_or_else(|| corrupt("fingerprint"))?;
        let fields = self
            .fingerprint_fields
            .ok_or_else(|| corrupt("fingerprint_fields"))?;
        let version = self
            .fingerprint_version
            .ok_or_else(|| corrupt("fingerprint_version"))?;
        Ok(FoundKey {
            fingerprint: Arc::new(stored_fingerprint(version, &fingerprint, fields)?),
            answer: Answer {
                response: Arc::new(stored_response(self.status, self.headers, self.body)?),
                replayed: true,
                expires_at: self.expires_at,
            },
            left: Duration::try_from_secs_f64(self.seconds_left).unwrap_or_default(),
        })
    }
}

/// A final key that a claim found in use. [`FoundColumns`] has an example.
pub struct FoundKey {
    pub(crate) fingerprint: Arc<Fingerprint>,
    pub(crate) answer: Answer,
    /// Time until it expires, from when the statement was sent.
    pub(crate) left: Duration,
}

/// A key that was inserted, as in the example of [`grouped`](crate::grouped#claims-in-groups).
#[derive(Clone, Copy, Debug)]
pub struct Inserted {
    /// The key's first use: the transaction's start, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// When it expires.
    pub expires_at: DateTime<Utc>,
}

/// Scoped keys, turned into the arrays that a statement unnests.
pub(crate) struct ScopeColumns<'a> {
    pub(crate) merchant_ids: Vec<&'a str>,
    pub(crate) operations: Vec<&'a str>,
    pub(crate) keys: Vec<&'a str>,
}

impl<'a> ScopeColumns<'a> {
    pub(crate) fn of(scopes: impl IntoIterator<Item = &'a ScopedKey>) -> Self {
        let mut columns = Self {
            merchant_ids: Vec::new(),
            operations: Vec::new(),
            keys: Vec::new(),
        };
        for scope in scopes {
            columns.merchant_ids.push(&scope.merchant_id);
            columns.operations.push(&scope.operation);
            columns.keys.push(scope.key.as_str());
        }
        columns
    }
}

/// A status is at most 599, which fits.
fn status_column(status: u16) -> i16 {
    i16::try_from(status).unwrap_or(i16::MAX)
}

/// Headers as `[["name", "value"], …]`, which keeps their order and spelling.
fn headers_column(response: &StoredResponse) -> Value {
    response
        .headers
        .iter()
        .map(|(name, value)| Value::from(vec![name.as_str(), value.as_str()]))
        .collect()
}
