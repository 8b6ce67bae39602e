//! Records, for operators and their programs.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::stored::{corrupt, stored_scope};
use crate::key::ScopedKey;
use crate::record::{KeyRecord, KeyState};

/// One merchant's record.
pub(crate) async fn find_record(
    connection: &mut PgConnection,
    scope: &ScopedKey,
) -> sqlx::Result<Option<KeyRecord>> {
    sqlx::query_as!(
        RecordRow,
        r#"
        select
            merchant_id,
            operation,
            key,
            fingerprint,
            state,
            attempt,
            lease_expires_at,
            resource_id,
            response_status,
            created_at,
            completed_at,
            expires_at
        from idempotency_keys
        where merchant_id = $1
            and operation = $2
            and key = $3
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
    )
    .fetch_optional(connection)
    .await?
    .map(RecordRow::into_record)
    .transpose()
}

/// Records in a state, or in any, those that expire last first. Reads the whole table where no index helps: for people, not for programs.
pub(crate) async fn list_records(
    connection: &mut PgConnection,
    state: Option<KeyState>,
    limit: i64,
) -> sqlx::Result<Vec<KeyRecord>> {
    sqlx::query_as!(
        RecordRow,
        r#"
        select
            merchant_id,
            operation,
            key,
            fingerprint,
            state,
            attempt,
            lease_expires_at,
            resource_id,
            response_status,
            created_at,
            completed_at,
            expires_at
        from idempotency_keys
        where $1::text is null
            or state = $1
        order by expires_at desc
        limit $2
        "#,
        state.map(KeyState::as_str),
        limit,
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(RecordRow::into_record)
    .collect()
}

/// Records whose lease has ended, oldest first.
pub(crate) async fn list_stuck_records(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<KeyRecord>> {
    sqlx::query_as!(
        RecordRow,
        r#"
        select
            k.merchant_id,
            k.operation,
            k.key,
            k.fingerprint,
            k.state,
            k.attempt,
            k.lease_expires_at,
            k.resource_id,
            k.response_status,
            k.created_at,
            k.completed_at,
            k.expires_at
        from unsettled_keys u
        join idempotency_keys k
            on k.merchant_id = u.merchant_id
            and k.operation = u.operation
            and k.key = u.key
        where k.state = 'PROCESSING'
            and k.lease_expires_at < now()
        order by u.claimed_at
        limit $1
        "#,
        limit,
    )
    .fetch_all(connection)
    .await?
    .into_iter()
    .map(RecordRow::into_record)
    .collect()
}

struct RecordRow {
    merchant_id: String,
    operation: String,
    key: String,
    fingerprint: Vec<u8>,
    state: String,
    attempt: i32,
    lease_expires_at: Option<DateTime<Utc>>,
    resource_id: Option<String>,
    response_status: Option<i16>,
    created_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
}

impl RecordRow {
    fn into_record(self) -> sqlx::Result<KeyRecord> {
        Ok(KeyRecord {
            scope: stored_scope(self.merchant_id, self.operation, &self.key)?,
            state: KeyState::from_name(&self.state).ok_or_else(|| corrupt("state"))?,
            fingerprint: hex::encode(&self.fingerprint),
            attempt: self.attempt,
            lease_expires_at: self.lease_expires_at,
            resource_id: self.resource_id,
            response_status: self
                .response_status
                .and_then(|status| u16::try_from(status).ok()),
            created_at: self.created_at,
            completed_at: self.completed_at,
            expires_at: self.expires_at,
        })
    }
}
