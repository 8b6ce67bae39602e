//! Claims: the statements that insert, take over, renew, finish and remove a key.

use std::time::Duration;

use sqlx::PgConnection;
use uuid::Uuid;

use super::columns::{Inserted, NewKey, ScopeColumns};
use super::stored::{corrupt, stored_scope};
use crate::database::interval;
use crate::fingerprint::FINGERPRINT_VERSION;
use crate::gate::Claim;
use crate::key::ScopedKey;
use crate::record::Outcome;

/// Takes the key if it was never used. Waits for a transaction that is about to use it. Returns `None` if there is a record, which may
/// have expired.
///
/// It is planned each time (`plan_cache_mode`). Skipping a conflict is planned in half the time of replacing what has expired, which
/// few claims need.
pub(crate) async fn insert_key(
    connection: &mut PgConnection,
    key: &NewKey,
) -> sqlx::Result<Option<Inserted>> {
    sqlx::query_as!(
        Inserted,
        r#"
        insert into idempotency_keys (
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
        on conflict (merchant_id, operation, key) do nothing
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

/// Takes the key if its record has expired. Returns `None` if it is in use or has no record.
///
/// `is true` keeps the planner from the index of times: it would read all keys that have expired since the table was analyzed.
pub(crate) async fn replace_expired_key(
    connection: &mut PgConnection,
    key: &NewKey,
) -> sqlx::Result<Option<Inserted>> {
    sqlx::query_as!(
        Inserted,
        r#"
        update idempotency_keys
        set fingerprint = $4,
            fingerprint_version = $5,
            fingerprint_fields = $6,
            state = 'PROCESSING',
            attempt = 1,
            owner = $7,
            lease_expires_at = now() + $8::interval,
            resource_id = null,
            response_status = null,
            response_headers = null,
            response_body = null,
            created_at = now(),
            completed_at = null,
            expires_at = now() + $9::interval
        where merchant_id = $1
            and operation = $2
            and key = $3
            and state <> 'PROCESSING'
            and (expires_at < now()) is true
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

/// Records that the key stays in `PROCESSING` after this transaction, and its resource.
pub(crate) async fn keep_unsettled(
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

/// Records that the key has left `PROCESSING` or is gone.
pub(crate) async fn forget_unsettled(
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

/// Takes an abandoned claim over. Returns `None` if it is final, gone, or held. The condition is the lock.
///
/// As in every update of a table that may be distributed, no function is volatile (`clock_timestamp`), and those of RETURNING
/// are immutable: the key's age is what its new lease is ahead of its first use, less the lease itself.
pub(crate) async fn take_over(
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

/// Stores the outcome of a key that this attempt holds. Returns false if it does not hold it any more.
pub(crate) async fn finish_key(
    connection: &mut PgConnection,
    scope: &ScopedKey,
    owner: Uuid,
    attempt: i32,
    outcome: &Outcome,
) -> sqlx::Result<bool> {
    let response = outcome.columns();
    let finished = sqlx::query!(
        r#"
        update idempotency_keys
        set state = $6,
            lease_expires_at = null,
            completed_at = statement_timestamp(),
            response_status = $7,
            response_headers = $8,
            response_body = $9
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
        response.status,
        response.headers,
        response.body,
    )
    .execute(connection)
    .await?;
    Ok(finished.rows_affected() == 1)
}

/// Stores the outcome of a key that this transaction has taken: nobody else sees or changes the row, so no condition is planned for
/// that. Returns false if the row is gone.
pub(crate) async fn finish_new_key(
    connection: &mut PgConnection,
    scope: &ScopedKey,
    resource_id: Option<&str>,
    outcome: &Outcome,
) -> sqlx::Result<bool> {
    let response = outcome.columns();
    let finished = sqlx::query!(
        r#"
        update idempotency_keys
        set state = $4,
            lease_expires_at = null,
            completed_at = statement_timestamp(),
            resource_id = $5,
            response_status = $6,
            response_headers = $7,
            response_body = $8
        where merchant_id = $1
            and operation = $2
            and key = $3
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
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

/// Removes a key that this attempt holds, as if it had never been used. Returns false if it does not hold it any more.
pub(crate) async fn remove_key(
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

struct RenewedKey {
    merchant_id: String,
    operation: String,
    key: String,
}

impl RenewedKey {
    fn scope(self) -> sqlx::Result<ScopedKey> {
        stored_scope(self.merchant_id, self.operation, &self.key)
    }
}

/// Renews the leases of this owner's claims on these keys. Returns the keys whose attempt still holds its claim.
pub(crate) async fn renew_leases(
    connection: &mut PgConnection,
    owner: Uuid,
    keys: &[(&ScopedKey, i32)],
    lock_timeout: Duration,
) -> sqlx::Result<Vec<ScopedKey>> {
    let columns = ScopeColumns::of(keys.iter().map(|(key, _)| *key));
    let attempts: Vec<i32> = keys.iter().map(|(_, attempt)| *attempt).collect();
    let rows = sqlx::query_as!(
        RenewedKey,
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
    rows.into_iter().map(RenewedKey::scope).collect()
}

/// Does what [`renew_leases`] does, for keys of one merchant where the tables are distributed by merchant: it asks the merchant's
/// node alone.
pub(crate) async fn renew_leases_of(
    connection: &mut PgConnection,
    merchant_id: &str,
    owner: Uuid,
    keys: &[(&ScopedKey, i32)],
    lock_timeout: Duration,
) -> sqlx::Result<Vec<ScopedKey>> {
    let columns = ScopeColumns::of(keys.iter().map(|(key, _)| *key));
    let attempts: Vec<i32> = keys.iter().map(|(_, attempt)| *attempt).collect();
    let rows = sqlx::query_as!(
        RenewedKey,
        r#"
        update idempotency_keys k
        set lease_expires_at = statement_timestamp() + $6::interval
        from unnest($2::text[], $3::text[], $4::integer[]) as held (operation, key, attempt)
        where k.merchant_id = $1
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
        merchant_id,
        &columns.operations as _,
        &columns.keys as _,
        &attempts,
        owner,
        interval(lock_timeout),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(RenewedKey::scope).collect()
}
