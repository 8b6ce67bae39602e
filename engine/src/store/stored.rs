//! Values from columns. A value that the schema does not allow is an error.

use bytes::Bytes;
use serde_json::Value;

use crate::fingerprint::Fingerprint;
use crate::key::{IdempotencyKey, ScopedKey};
use crate::response::StoredResponse;

pub(super) fn stored_scope(
    merchant_id: String,
    operation: String,
    key: &str,
) -> sqlx::Result<ScopedKey> {
    let key = IdempotencyKey::new(key).map_err(|_| corrupt("key"))?;
    Ok(ScopedKey::new(merchant_id, operation, key))
}

pub(super) fn stored_fingerprint(
    version: i16,
    hash: &[u8],
    fields: String,
) -> sqlx::Result<Fingerprint> {
    Ok(Fingerprint {
        version,
        hash: hash.try_into().map_err(|_| corrupt("fingerprint"))?,
        fields,
    })
}

pub(super) fn stored_response(
    status: Option<i16>,
    headers: Option<Value>,
    body: Option<Vec<u8>>,
) -> sqlx::Result<StoredResponse> {
    Ok(StoredResponse {
        status: status
            .and_then(|status| u16::try_from(status).ok())
            .ok_or_else(|| corrupt("response_status"))?,
        headers: headers
            .and_then(|headers| serde_json::from_value(headers).ok())
            .ok_or_else(|| corrupt("response_headers"))?,
        body: body
            .map(Bytes::from)
            .ok_or_else(|| corrupt("response_body"))?,
    })
}

/// A row that the schema's constraints do not allow.
pub(super) fn corrupt(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("idempotency_keys.{column} holds what it may not").into())
}
