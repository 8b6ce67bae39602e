//! The SQL of the audit.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Entry, NewEntry};
use crate::database::{self, Bounded};
use crate::idempotency::ScopedKey;

/// Maximum number of actions that are shown of one key.
const SHOWN_OF_KEY: i64 = 50;

/// Writes a row.
pub(super) async fn insert_entry(
    pool: &PgPool,
    entry: &NewEntry<'_>,
) -> sqlx::Result<DateTime<Utc>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_scalar!(
        r#"
        insert into operator_actions (
            merchant_id,
            action_id,
            operator,
            peer,
            session_id,
            action,
            operation,
            key,
            outcome
        )
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        returning occurred_at
        "#,
        entry.subject.map_or("", |scope| &scope.merchant_id),
        entry.id,
        entry.operator,
        entry.peer,
        entry.session,
        entry.action.into_str(),
        entry.subject.map(|scope| scope.operation.as_str()),
        entry.subject.map(|scope| scope.key.as_str()),
        entry.outcome,
    )
    .fetch_one(&mut *connection)
    .bounded()
    .await
}

/// Adds the outcome to a row that has none.
pub(super) async fn add_outcome(
    pool: &PgPool,
    merchant_id: &str,
    id: Uuid,
    outcome: &str,
) -> sqlx::Result<()> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query!(
        r#"
        update operator_actions
        set outcome = $3
        where merchant_id = $1
            and action_id = $2
            and outcome is null
        "#,
        merchant_id,
        id,
        outcome,
    )
    .execute(&mut *connection)
    .bounded()
    .await?;
    Ok(())
}

/// The time now, while a session goes on.
pub(super) async fn open_at(
    pool: &PgPool,
    session: Uuid,
    expires_at: i64,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_scalar!(
        r#"
        select now() as "now!"
        where extract(epoch from now()) < $2::bigint
            and not exists (
                select
                from operator_actions
                where merchant_id = ''
                    and session_id = $1
                    and action = 'sign_out'
            )
        "#,
        session,
        expires_at,
    )
    .fetch_optional(&mut *connection)
    .bounded()
    .await
}

/// A page of the audit, latest first.
pub(super) async fn list_entries(
    pool: &PgPool,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Entry>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        Entry,
        r#"
        select
            action_id as id,
            occurred_at,
            operator,
            peer,
            action,
            merchant_id,
            operation,
            key,
            outcome
        from operator_actions
        where $1::uuid is null
            or action_id < $1
        order by action_id desc
        limit $2
        "#,
        before,
        limit,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}

/// What was done to one key, latest first.
pub(super) async fn list_of_key(pool: &PgPool, scope: &ScopedKey) -> sqlx::Result<Vec<Entry>> {
    let mut connection = database::acquire(pool).await?;
    sqlx::query_as!(
        Entry,
        r#"
        select
            action_id as id,
            occurred_at,
            operator,
            peer,
            action,
            merchant_id,
            operation,
            key,
            outcome
        from operator_actions
        where merchant_id = $1
            and operation = $2
            and key = $3
        order by action_id desc
        limit $4
        "#,
        scope.merchant_id,
        scope.operation,
        scope.key.as_str(),
        SHOWN_OF_KEY,
    )
    .fetch_all(&mut *connection)
    .bounded()
    .await
}
