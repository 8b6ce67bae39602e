//! The engine's SQL. Every function is one statement on a connection that the engine gives it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;
use uuid::Uuid;

use super::fingerprint::{FINGERPRINT_VERSION, Fingerprint};
use super::gate::Claim;
use super::key::{IdempotencyKey, ScopedKey};
use super::record::{Answer, KeyRecord, KeyState, Outcome};
use super::response::StoredResponse;
use super::secrets::UnknownSecret;

/// What a first request writes of its key.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub(crate) scope: ScopedKey,
    pub(crate) fingerprint: Arc<Fingerprint>,
    pub(crate) owner: Uuid,
    pub(crate) lock_timeout: Duration,
    pub(crate) ttl: Duration,
}

/// A new key's columns, for a statement that inserts more than the key.
pub struct KeyColumns<'a> {
    /// The key in its scope.
    pub scope: &'a ScopedKey,
    /// 32 bytes.
    pub fingerprint: &'a [u8],
    /// The digests of the fields, a line each.
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

    /// Whose claim it is to be.
    pub fn owner(&self) -> Uuid {
        self.owner
    }

    /// How long the claim holds at first.
    pub fn lock_timeout(&self) -> PgInterval {
        interval(self.lock_timeout)
    }

    /// How long the key is remembered.
    pub fn ttl(&self) -> PgInterval {
        interval(self.ttl)
    }
}

/// An outcome's columns, for a statement that settles more than the key.
pub struct ResponseColumns<'a> {
    /// `COMPLETED` or `FAILED`.
    pub state: &'static str,
    /// The HTTP status.
    pub status: i16,
    /// `[["name", "value"], …]`.
    pub headers: Value,
    /// The body.
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
pub struct FoundColumns {
    /// 32 bytes.
    pub fingerprint: Option<Vec<u8>>,
    /// The version of the canonical form that was signed.
    pub fingerprint_version: Option<i16>,
    /// The digests of the fields, a line each.
    pub fingerprint_fields: Option<String>,
    /// The HTTP status.
    pub status: Option<i16>,
    /// `[["name", "value"], …]`.
    pub headers: Option<Value>,
    /// The body.
    pub body: Option<Vec<u8>>,
    /// When the key will be forgotten.
    pub expires_at: DateTime<Utc>,
    /// How long that is from the statement's start, by the database's clock.
    pub seconds_left: f64,
}

impl FoundColumns {
    /// What they say. The schema does not allow a final key without an answer.
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

/// A final key that was found in a claim's way.
pub struct FoundKey {
    pub(super) fingerprint: Arc<Fingerprint>,
    pub(super) answer: Answer,
    /// How long it is still remembered, from when it was asked for.
    pub(super) left: Duration,
}

/// A key that was inserted.
#[derive(Clone, Copy, Debug)]
pub struct Inserted {
    /// The key's first use: the transaction's start, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// When it will be forgotten.
    pub expires_at: DateTime<Utc>,
}

/// Intervals are sent in microseconds; what does not fit (292,000 years) is as good as for ever.
fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}

/// Takes the key where it is unused, or final and past its time. Waits for a transaction that is about to use it. `None`:
/// it is in use.
pub(super) async fn insert_key(
    connection: &mut PgConnection,
    key: &NewKey,
) -> sqlx::Result<Option<Inserted>> {
    sqlx::query_as!(
        Inserted,
        r#"
        insert into idempotency_keys as k (
            merchant_id,
            operation,
            key,
            fingerprint,
            fingerprint_version,
            fingerprint_fields,
            state,
            attempt,
            owner,
            lease_expires_at,
            created_at,
            expires_at
        )
        values ($1, $2, $3, $4, $5, $6, 'PROCESSING', 1, $7, now() + $8::interval, now(), now() + $9::interval)
        on conflict (merchant_id, operation, key) do update set
            fingerprint = excluded.fingerprint,
            fingerprint_version = excluded.fingerprint_version,
            fingerprint_fields = excluded.fingerprint_fields,
            state = excluded.state,
            attempt = excluded.attempt,
            owner = excluded.owner,
            lease_expires_at = excluded.lease_expires_at,
            resource_id = null,
            response_status = null,
            response_headers = null,
            response_body = null,
            created_at = excluded.created_at,
            completed_at = null,
            expires_at = excluded.expires_at
        where k.state <> 'PROCESSING'
            and k.expires_at < excluded.created_at
        returning
            created_at,
            expires_at
        "#,
        key.scope.merchant_id,
        key.scope.operation,
        key.scope.key.as_str(),
        key.fingerprint.hash.as_slice(),
        FINGERPRINT_VERSION,
        key.fingerprint.fields,
        key.owner,
        interval(key.lock_timeout),
        interval(key.ttl),
    )
    .fetch_optional(connection)
    .await
}

/// Notes that the key stays in `PROCESSING` past this transaction, and what it is about.
pub(super) async fn keep_unsettled(
    connection: &mut PgConnection,
    scope: &ScopedKey,
    resource_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        with named as (
            update idempotency_keys
            set resource_id = $4
            where merchant_id = $1
                and operation = $2
                and key = $3
            returning created_at
        )
        insert into unsettled_keys (merchant_id, operation, key, claimed_at)
        select $1, $2, $3, created_at
        from named
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
        resource_id,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// A record as the gate sees it.
#[derive(Debug)]
pub(super) struct SeenKey {
    pub(super) fingerprint: Arc<Fingerprint>,
    pub(super) owner: Uuid,
    pub(super) attempt: i32,
    pub(super) resource_id: Option<String>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    /// How long the key is still remembered; zero past its time.
    pub(super) left: Duration,
    pub(super) standing: Standing,
    /// True where what is visible cannot be lost. With synchronous standbys a commit whose wait for them was cut off is visible
    /// and not yet durable: see [`wait_until_durable`].
    pub(super) is_durable: bool,
}

/// Where a seen key stands at this moment, by the database's clock.
#[derive(Debug)]
pub(super) enum Standing {
    /// Its owner is at work, or has been silent for less than its lease.
    Claimed,
    /// Its owner gave no sign of life for the whole lease.
    Abandoned,
    /// It has its outcome.
    Final(Arc<StoredResponse>),
    /// It has its outcome, and its time is over.
    PastItsTime,
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
            Some(_) if self.seconds_left < 0.0 => Standing::PastItsTime,
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

/// Looks at a key without locking it: enough to wait by, and to replay what is final.
pub(super) async fn see_key(
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

/// Locks a key's row: waits for whoever writes it, and then sees what was committed.
pub(super) async fn lock_key(
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
pub(super) async fn wait_until_durable(connection: &mut PgConnection) -> sqlx::Result<()> {
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

/// Takes an abandoned claim over. Returns `None` where it is final, gone, or somebody's. The condition is the lock.
///
/// As in every update of a table that may be distributed, no function is volatile (`clock_timestamp`), and those of RETURNING
/// are immutable: the key's age is what its new lease is ahead of its first use, less the lease itself.
pub(super) async fn take_over(
    connection: &mut PgConnection,
    scope: &ScopedKey,
    owner: Uuid,
    lock_timeout: Duration,
) -> sqlx::Result<Option<Claim>> {
    let row = sqlx::query!(
        r#"
        update idempotency_keys
        set attempt = attempt + 1,
            owner = $4,
            lease_expires_at = statement_timestamp() + $5::interval
        where merchant_id = $1
            and operation = $2
            and key = $3
            and state = 'PROCESSING'
            and lease_expires_at < statement_timestamp()
        returning
            attempt,
            resource_id,
            created_at,
            expires_at,
            extract(epoch from lease_expires_at - created_at - $5::interval)::float8 as "age_seconds!"
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
        owner,
        interval(lock_timeout),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Claim {
        scope: scope.clone(),
        attempt: row.attempt,
        resource_id: row.resource_id.ok_or_else(|| corrupt("resource_id"))?,
        created_at: row.created_at,
        expires_at: row.expires_at,
        // It is below zero where the database's clock was stepped back.
        age: Duration::try_from_secs_f64(row.age_seconds).ok(),
    }))
}

/// Stores the outcome of a key that this attempt holds. False: it does not hold it any more.
pub(super) async fn finish_key(
    connection: &mut PgConnection,
    scope: &ScopedKey,
    owner: Uuid,
    attempt: i32,
    resource_id: Option<&str>,
    outcome: &Outcome,
) -> sqlx::Result<bool> {
    let response = outcome.columns();
    let finished = sqlx::query!(
        r#"
        update idempotency_keys
        set state = $6,
            lease_expires_at = null,
            completed_at = statement_timestamp(),
            resource_id = coalesce($7, resource_id),
            response_status = $8,
            response_headers = $9,
            response_body = $10
        where merchant_id = $1
            and operation = $2
            and key = $3
            and owner = $4
            and attempt = $5
            and state = 'PROCESSING'
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
        owner,
        attempt,
        response.state,
        resource_id,
        response.status,
        response.headers,
        response.body,
    )
    .execute(connection)
    .await?;
    Ok(finished.rows_affected() == 1)
}

/// The key leaves `PROCESSING`, or is gone.
pub(super) async fn forget_unsettled(
    connection: &mut PgConnection,
    scope: &ScopedKey,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        delete from unsettled_keys
        where merchant_id = $1
            and operation = $2
            and key = $3
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Removes a key that this attempt holds, as if it had never been used. False: it does not hold it any more.
pub(super) async fn remove_key(
    connection: &mut PgConnection,
    owner: Uuid,
    claim: &Claim,
) -> sqlx::Result<bool> {
    let removed = sqlx::query!(
        r#"
        delete from idempotency_keys
        where merchant_id = $1
            and operation = $2
            and key = $3
            and owner = $4
            and attempt = $5
            and resource_id = $6
            and state = 'PROCESSING'
        "#,
        claim.scope.merchant_id,
        claim.scope.operation,
        claim.scope.key.as_str(),
        owner,
        claim.attempt,
        claim.resource_id,
    )
    .execute(connection)
    .await?;
    Ok(removed.rows_affected() == 1)
}

/// Gives this owner's claims on these keys their full lease again. Returns the keys whose attempt still holds its claim.
pub(super) async fn renew_leases(
    connection: &mut PgConnection,
    owner: Uuid,
    keys: &[(&ScopedKey, i32)],
    lock_timeout: Duration,
) -> sqlx::Result<Vec<ScopedKey>> {
    let columns = ScopeColumns::of(keys.iter().map(|(key, _)| *key));
    let attempts: Vec<i32> = keys.iter().map(|(_, attempt)| *attempt).collect();
    let rows = sqlx::query!(
        r#"
        update idempotency_keys k
        set lease_expires_at = statement_timestamp() + $6::interval
        from unnest($1::text[], $2::text[], $3::text[], $4::integer[]) as held (merchant_id, operation, key, attempt)
        where k.merchant_id = held.merchant_id
            and k.operation = held.operation
            and k.key = held.key
            and k.attempt = held.attempt
            and k.owner = $5
            and k.state = 'PROCESSING'
        returning
            k.merchant_id,
            k.operation,
            k.key
        "#,
        &columns.merchant_ids as _,
        &columns.operations as _,
        &columns.keys as _,
        &attempts,
        owner,
        interval(lock_timeout),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| stored_scope(row.merchant_id, row.operation, &row.key))
        .collect()
}

fn stored_scope(merchant_id: String, operation: String, key: &str) -> sqlx::Result<ScopedKey> {
    let key = IdempotencyKey::new(key).map_err(|_| corrupt("key"))?;
    Ok(ScopedKey::new(merchant_id, operation, key))
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

/// One merchant's record, for people and programs that look.
pub(super) async fn find_record(
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

/// Records in a state, or in any, newest first. Reads the whole table where no index helps: for people, not for programs.
pub(super) async fn list_records(
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

/// Records whose owner has been silent for its whole lease, oldest first.
pub(super) async fn list_stuck_records(
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

/// Keys of these operations whose owner has been silent for its whole lease, oldest first, from the one after `after` on. Read
/// without a lock.
pub(super) async fn list_abandoned(
    connection: &mut PgConnection,
    operations: &[&str],
    after: Option<&Abandoned>,
    limit: i64,
) -> sqlx::Result<Vec<Abandoned>> {
    let rows = sqlx::query!(
        r#"
        select
            u.merchant_id,
            u.operation,
            u.key,
            u.claimed_at
        from unsettled_keys u
        join idempotency_keys k
            on k.merchant_id = u.merchant_id
            and k.operation = u.operation
            and k.key = u.key
        where k.state = 'PROCESSING'
            and k.lease_expires_at < now()
            and u.operation = any($6::text[])
            and (
                $1::timestamptz is null
                or (u.claimed_at, u.merchant_id, u.operation, u.key) > ($1, $2, $3, $4)
            )
        order by u.claimed_at, u.merchant_id, u.operation, u.key
        limit $5
        "#,
        after.map(|after| after.claimed_at),
        after.map(|after| after.scope.merchant_id.as_str()),
        after.map(|after| after.scope.operation.as_str()),
        after.map(|after| after.scope.key.as_str()),
        limit,
        operations as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Abandoned {
                scope: stored_scope(row.merchant_id, row.operation, &row.key)?,
                claimed_at: row.claimed_at,
            })
        })
        .collect()
}

/// A key whose owner has been silent for its whole lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// The key.
    pub scope: ScopedKey,
    /// Its first use.
    pub claimed_at: DateTime<Utc>,
}

/// How many keys are in `PROCESSING`, and for how long the oldest has been.
pub(super) async fn count_unsettled(connection: &mut PgConnection) -> sqlx::Result<(i64, f64)> {
    let row = sqlx::query!(
        r#"
        select
            count(*) as "unsettled!",
            coalesce(extract(epoch from now() - min(claimed_at)), 0)::float8 as "oldest_seconds!"
        from unsettled_keys
        "#,
    )
    .fetch_one(connection)
    .await?;
    Ok((row.unsettled, row.oldest_seconds))
}

/// Where a batch of `limit` final keys past their time ends, from `from` on: the time of the first that is no longer in it.
/// `None`: it has all that are left.
pub(super) async fn end_of_batch(
    connection: &mut PgConnection,
    from: Option<DateTime<Utc>>,
    limit: i64,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        r#"
        select expires_at
        from idempotency_keys
        where expires_at >= coalesce($1::timestamptz, '-infinity')
            and expires_at < now()
            and state <> 'PROCESSING'
        order by expires_at
        limit 1
        offset $2
        "#,
        from,
        limit,
    )
    .fetch_optional(connection)
    .await
}

/// Where the write-ahead log is, in bytes. Not every PostgreSQL-compatible engine has one to show.
pub(super) async fn written(connection: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar!(r#"select (pg_current_wal_insert_lsn() - '0/0')::bigint as "written!""#)
        .fetch_one(connection)
        .await
}

/// Deletes the final keys past their time from `from` on and before `end`; says how many. Where somebody holds one of them it
/// fails by the session's lock time-out, and deletes none. The delete itself is the lock: a clean-up that may do nothing else
/// could not lock a row first, and Citus locks no rows of many merchants.
pub(super) async fn delete_expired_between(
    connection: &mut PgConnection,
    from: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
) -> sqlx::Result<u64> {
    let deleted = sqlx::query!(
        r#"
        delete from idempotency_keys
        where expires_at >= coalesce($1::timestamptz, '-infinity')
            and expires_at < least($2::timestamptz, now())
            and state <> 'PROCESSING'
        "#,
        from,
        end,
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// A final key past its time, where the clean-up found it.
pub(super) struct ExpiredKey {
    merchant_id: String,
    operation: String,
    key: String,
    pub(super) expires_at: DateTime<Utc>,
}

/// Up to `limit` final keys past their time, oldest first, from `from` on and from behind `last`. It locks nothing.
pub(super) async fn list_expired(
    connection: &mut PgConnection,
    from: Option<DateTime<Utc>>,
    last: Option<&ExpiredKey>,
    limit: i64,
) -> sqlx::Result<Vec<ExpiredKey>> {
    sqlx::query_as!(
        ExpiredKey,
        r#"
        select
            merchant_id,
            operation,
            key,
            expires_at
        from idempotency_keys
        where expires_at >= coalesce($1::timestamptz, '-infinity')
            and expires_at < now()
            and state <> 'PROCESSING'
            and (
                $2::timestamptz is null
                or (expires_at, merchant_id, operation, key) > ($2, $3, $4, $5)
            )
        order by
            expires_at,
            merchant_id,
            operation,
            key
        limit $6
        "#,
        from,
        last.map(|last| last.expires_at),
        last.map(|last| last.merchant_id.as_str()),
        last.map(|last| last.operation.as_str()),
        last.map(|last| last.key.as_str()),
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Deletes these keys, as far as they are still final and past their time; says how many it deleted.
pub(super) async fn delete_expired(
    connection: &mut PgConnection,
    keys: &[ExpiredKey],
) -> sqlx::Result<u64> {
    let column = |of: fn(&ExpiredKey) -> &String| keys.iter().map(of).cloned().collect::<Vec<_>>();
    let deleted = sqlx::query!(
        r#"
        delete from idempotency_keys k
        using unnest($1::text[], $2::text[], $3::text[]) as c (merchant_id, operation, key)
        where k.merchant_id = c.merchant_id
            and k.operation = c.operation
            and k.key = c.key
            and k.expires_at < now()
            and k.state <> 'PROCESSING'
        "#,
        &column(|key| &key.merchant_id),
        &column(|key| &key.operation),
        &column(|key| &key.key),
    )
    .execute(connection)
    .await?;
    Ok(deleted.rows_affected())
}

/// How many keys a clean-up would delete now, from `from` on.
pub(super) async fn count_expired(
    connection: &mut PgConnection,
    from: Option<DateTime<Utc>>,
) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!"
        from idempotency_keys
        where expires_at >= coalesce($1::timestamptz, '-infinity')
            and expires_at < now()
            and state <> 'PROCESSING'
        "#,
        from,
    )
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// The secrets that signed fingerprints here, oldest first.
pub(super) async fn list_secrets(
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<UnknownSecret>> {
    sqlx::query_as!(
        UnknownSecret,
        r#"
        select
            secret_id as id,
            retired_at
        from fingerprint_secrets
        order by added_at
        "#,
    )
    .fetch_all(connection)
    .await
}

/// Notes that the first of these secrets signs, and that the others do not any more.
pub(super) async fn note_secrets(
    connection: &mut PgConnection,
    secret_ids: &[String],
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        insert into fingerprint_secrets as s (secret_id, retired_at)
        select
            secret_id,
            case when place > 1 then now() end
        from unnest($1::text[]) with ordinality as known (secret_id, place)
        on conflict (merchant_id, secret_id) do update set
            retired_at = case when excluded.retired_at is not null then coalesce(s.retired_at, excluded.retired_at) end
        where s.retired_at is distinct from excluded.retired_at
        "#,
        secret_ids,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// One clean-up at a time: a courtesy, not what correctness rests on. False: another is at work.
pub(super) async fn try_cleanup_lock(connection: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select pg_try_advisory_lock(hashtext('payonce-cleanup')) as "locked!""#)
        .fetch_one(connection)
        .await
}

/// Lets the next clean-up begin.
pub(super) async fn release_cleanup_lock(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query_scalar!(r#"select pg_advisory_unlock(hashtext('payonce-cleanup')) as "unlocked!""#)
        .fetch_one(connection)
        .await
        .map(drop)
}

/// Counting millions of rows may take longer than a request's statement ever should. A lock is waited for less than a request
/// would wait, and less than it takes PostgreSQL to look for a deadlock (1 s): of the two, the clean-up gives way.
pub(super) async fn set_cleanup_timeouts(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql("set statement_timeout = '1min'; set lock_timeout = '250ms'")
        .execute(connection)
        .await
        .map(drop)
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

/// A row that the schema's constraints do not allow.
fn corrupt(column: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("idempotency_keys.{column} holds what it may not").into())
}

fn stored_fingerprint(version: i16, hash: &[u8], fields: String) -> sqlx::Result<Fingerprint> {
    Ok(Fingerprint {
        version,
        hash: hash.try_into().map_err(|_| corrupt("fingerprint"))?,
        fields,
    })
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

fn stored_response(
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

impl SeenKey {
    /// The stored answer, where there is one.
    pub(super) fn answer(&self) -> Option<Answer> {
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
