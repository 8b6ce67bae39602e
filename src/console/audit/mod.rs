//! The audit: who did what in the console, and when.
//!
//! A row is written before its action is taken; if it cannot be written, the action is not taken. Rows are never deleted, and the
//! only change to a row is that its outcome is added. For this reason the number of rows that a client without the token can cause
//! is bounded.

mod store;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::idempotency::ScopedKey;

/// The operator in rows of refused sign-ins: who they were is unknown, and the name that they gave is not recorded.
const NOBODY: &str = "nobody";

/// Who acts: what the audit records of an operator.
#[derive(Clone, Copy)]
pub(super) struct Actor<'a> {
    pub(super) operator: &'a str,
    pub(super) peer: &'a str,
    pub(super) session: Uuid,
}

/// What an operator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub(super) enum Action {
    SignIn,
    SignInRefused,
    SignOut,
    ResolveNow,
}

/// A row of the audit, as it is shown.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) id: Uuid,
    pub(super) occurred_at: DateTime<Utc>,
    pub(super) operator: String,
    pub(super) peer: String,
    pub(super) action: String,
    pub(super) merchant_id: String,
    pub(super) operation: Option<String>,
    pub(super) key: Option<String>,
    pub(super) outcome: Option<String>,
}

/// A row that is to be written.
struct NewEntry<'a> {
    id: Uuid,
    operator: &'a str,
    peer: &'a str,
    session: Option<Uuid>,
    action: Action,
    subject: Option<&'a ScopedKey>,
    /// The outcome, if it is known beforehand.
    outcome: Option<&'a str>,
}

/// Records a sign-in. Returns its time, by the database's clock.
pub(super) async fn note_sign_in(pool: &PgPool, actor: Actor<'_>) -> sqlx::Result<DateTime<Utc>> {
    let (_, at) = insert(pool, actor, Action::SignIn, None).await?;
    Ok(at)
}

/// Records how many attempts with a wrong token there were from a network in this hour.
///
/// The caller does so at 1, 10, 100 and so on, and for a few networks: the rows are never deleted.
pub(super) async fn note_refusals(pool: &PgPool, network: &str, tries: u64) -> sqlx::Result<()> {
    let outcome = match tries {
        1 => "the first try of this hour".to_owned(),
        tries => format!("{tries} tries in this hour"),
    };
    let entry = NewEntry {
        id: Uuid::now_v7(),
        operator: NOBODY,
        peer: network,
        session: None,
        action: Action::SignInRefused,
        subject: None,
        outcome: Some(&outcome),
    };
    store::insert_entry(pool, &entry).await.map(drop)
}

/// Records a sign-out. The row itself is what ends the session.
pub(super) async fn note_sign_out(pool: &PgPool, actor: Actor<'_>) -> sqlx::Result<()> {
    insert(pool, actor, Action::SignOut, None).await.map(drop)
}

/// Records that a key is about to be resolved.
pub(super) async fn note_resolve(
    pool: &PgPool,
    actor: Actor<'_>,
    scope: &ScopedKey,
) -> sqlx::Result<Uuid> {
    let (id, _) = insert(pool, actor, Action::ResolveNow, Some(scope)).await?;
    Ok(id)
}

async fn insert(
    pool: &PgPool,
    actor: Actor<'_>,
    action: Action,
    subject: Option<&ScopedKey>,
) -> sqlx::Result<(Uuid, DateTime<Utc>)> {
    let id = Uuid::now_v7();
    let entry = NewEntry {
        id,
        operator: actor.operator,
        peer: actor.peer,
        session: Some(actor.session),
        action,
        subject,
        outcome: None,
    };
    Ok((id, store::insert_entry(pool, &entry).await?))
}

/// Adds the outcome of an action.
pub(super) async fn add_outcome(
    pool: &PgPool,
    scope: &ScopedKey,
    id: Uuid,
    outcome: &'static str,
) -> sqlx::Result<()> {
    store::add_outcome(pool, &scope.merchant_id, id, outcome).await
}

/// Returns the time by the database's clock, or `None` if the session has expired or was signed out. `expires_at` is in seconds since
/// 1970.
pub(super) async fn open_at(
    pool: &PgPool,
    session: Uuid,
    expires_at: i64,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    store::open_at(pool, session, expires_at).await
}

/// A page of the audit, latest first.
pub(super) async fn list(
    pool: &PgPool,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Entry>> {
    store::list_entries(pool, before, limit).await
}

/// What was done to one key, latest first.
pub(super) async fn of_key(pool: &PgPool, scope: &ScopedKey) -> sqlx::Result<Vec<Entry>> {
    store::list_of_key(pool, scope).await
}
