//! Reads of a key by the gate.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::stored::{corrupt, stored_fingerprint, stored_response};
use crate::fingerprint::Fingerprint;
use crate::key::ScopedKey;
use crate::record::{Answer, KeyState};
use crate::response::StoredResponse;

/// A record, for the gate.
#[derive(Debug)]
pub(crate) struct SeenKey {
    pub(crate) fingerprint: Arc<Fingerprint>,
    pub(crate) owner: Uuid,
    pub(crate) attempt: i32,
    pub(crate) resource_id: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    /// Time until the key expires; zero if it has expired.
    pub(crate) left: Duration,
    pub(crate) standing: Standing,
    /// True if the visible state is durable. With synchronous standbys, a commit whose wait for them was interrupted is visible but
    /// not yet durable: see [`wait_until_durable`].
    pub(crate) is_durable: bool,
}

/// The state of a key now, by the database's clock.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Its lease has not ended.
    Claimed,
    /// Its lease has ended.
    Abandoned,
    /// It is final.
    Final(Arc<StoredResponse>),
    /// It is final and has expired.
    Expired,
}

impl SeenKey {
    /// The stored answer, if there is one.
    pub(crate) fn answer(&self) -> Option<Answer> {
        match &self.standing {
            Standing::Final(response) => Some(Answer {
                response: response.clone(),
                replayed: true,
                expires_at: self.expires_at,
            }),
            _ => None,
        }
    }
}

struct SeenRow {
    fingerprint: Vec<u8>,
    fingerprint_version: i16,
    fingerprint_fields: String,
    state: String,
    owner: Uuid,
    attempt: i32,
    resource_id: Option<String>,
    response_status: Option<i16>,
    response_headers: Option<Value>,
    response_body: Option<Vec<u8>>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    lease_over: Option<bool>,
    seconds_left: f64,
    is_durable: bool,
}

impl SeenRow {
    fn into_seen(self) -> sqlx::Result<SeenKey> {
        let standing = match KeyState::from_name(&self.state) {
            Some(KeyState::Processing) if self.lease_over == Some(true) => Standing::Abandoned,
            Some(KeyState::Processing) => Standing::Claimed,
            Some(_) if self.seconds_left < 0.0 => Standing::Expired,
            Some(_) => Standing::Final(Arc::new(stored_response(
                self.response_status,
                self.response_headers,
                self.response_body,
            )?)),
            None => return Err(corrupt("state")),
        };
        Ok(SeenKey {
            fingerprint: Arc::new(stored_fingerprint(
                self.fingerprint_version,
                &self.fingerprint,
                self.fingerprint_fields,
            )?),
            owner: self.owner,
            attempt: self.attempt,
            resource_id: self.resource_id,
            created_at: self.created_at,
            expires_at: self.expires_at,
            left: Duration::try_from_secs_f64(self.seconds_left).unwrap_or_default(),
            standing,
            is_durable: self.is_durable,
        })
    }
}

/// Reads a key without a lock. This is enough to wait for it, or to replay a final answer.
pub(crate) async fn see_key(
    connection: &mut PgConnection,
    scope: &ScopedKey,
) -> sqlx::Result<Option<SeenKey>> {
    sqlx::query_as!(
        SeenRow,
        r#"
        select
            fingerprint,
            fingerprint_version,
            fingerprint_fields,
            state,
            owner,
            attempt,
            resource_id,
            response_status,
            response_headers,
            response_body,
            created_at,
            expires_at,
            lease_expires_at < clock_timestamp() as lease_over,
            extract(epoch from expires_at - clock_timestamp())::float8 as "seconds_left!",
            current_setting('synchronous_standby_names') = '' as "is_durable!"
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
    .map(SeenRow::into_seen)
    .transpose()
}

/// Locks a key's row: waits for a transaction that writes it, and then reads what was committed.
pub(crate) async fn lock_key(
    connection: &mut PgConnection,
    scope: &ScopedKey,
) -> sqlx::Result<Option<SeenKey>> {
    sqlx::query_as!(
        SeenRow,
        r#"
        select
            fingerprint,
            fingerprint_version,
            fingerprint_fields,
            state,
            owner,
            attempt,
            resource_id,
            response_status,
            response_headers,
            response_body,
            created_at,
            expires_at,
            lease_expires_at < clock_timestamp() as lease_over,
            extract(epoch from expires_at - clock_timestamp())::float8 as "seconds_left!",
            current_setting('synchronous_standby_names') = '' as "is_durable!"
        from idempotency_keys
        where merchant_id = $1
            and operation = $2
            and key = $3
        for update
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
    )
    .fetch_optional(connection)
    .await?
    .map(SeenRow::into_seen)
    .transpose()
}

/// Returns when all that was visible before is durable, also on the synchronous standbys that there are.
///
/// PostgreSQL shows a commit to others once its session stops waiting for the standbys, whether they confirmed it or the session
/// was terminated. A commit of this session's own, which writes to the log after it, waits for them again. Without synchronous
/// standbys there is nothing to wait for, and nothing is written.
pub(crate) async fn wait_until_durable(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        r#"
        select case
            when current_setting('synchronous_standby_names') <> ''
                then pg_logical_emit_message(true, 'payonce', '')::text
        end
        "#,
    )
    .fetch_one(connection)
    .await
    .map(drop)
}

/// Commits a message in the log, which no table has: what it takes is what a commit takes.
pub(crate) async fn commit_message(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query_scalar!("select pg_logical_emit_message(true, 'payonce', '')::text")
        .fetch_one(connection)
        .await
        .map(drop)
}
