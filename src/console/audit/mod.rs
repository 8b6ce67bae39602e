//! The audit: who did what in the console, and when.
//!
//! A row is written before what it tells of is done; where it cannot be written, nothing is done. Rows are never deleted, and
//! only the outcome of one is ever added to it.

mod page;
mod store;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

pub(super) use self::page::{actions_table, page};
use super::session::Operator;
use crate::idempotency::ScopedKey;

/// What an operator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    SignIn,
    SignInRefused,
    SignOut,
    ResolveNow,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::SignInRefused => "sign_in_refused",
            Self::SignOut => "sign_out",
            Self::ResolveNow => "resolve_now",
        }
    }
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
}

/// Somebody at the door.
pub(super) struct SignIn {
    operator: String,
    peer: String,
    session: Option<Uuid>,
}

impl SignIn {
    /// Who is let in, and their new session.
    pub(super) fn admitted(operator: &str, peer: &str, session: Uuid) -> Self {
        let session = Some(session);
        Self {
            session,
            ..Self::refused(operator, peer)
        }
    }

    /// Who did not have the token.
    pub(super) fn refused(operator: &str, peer: &str) -> Self {
        Self {
            operator: operator.to_owned(),
            peer: peer.to_owned(),
            session: None,
        }
    }
}

/// Notes somebody at the door; the moment by the database's clock.
pub(super) async fn note_sign_in(pool: &PgPool, sign_in: SignIn) -> sqlx::Result<DateTime<Utc>> {
    let entry = NewEntry {
        id: Uuid::now_v7(),
        operator: &sign_in.operator,
        peer: &sign_in.peer,
        session: sign_in.session,
        action: match sign_in.session {
            Some(_) => Action::SignIn,
            None => Action::SignInRefused,
        },
        subject: None,
    };
    store::insert_entry(pool, &entry).await
}

/// Notes that a session ends, which ends it.
pub(super) async fn note_sign_out(pool: &PgPool, operator: &Operator) -> sqlx::Result<()> {
    insert(pool, operator, Action::SignOut, None)
        .await
        .map(drop)
}

/// Notes that a key is about to be resolved.
pub(super) async fn note_resolve(
    pool: &PgPool,
    operator: &Operator,
    scope: &ScopedKey,
) -> sqlx::Result<Uuid> {
    insert(pool, operator, Action::ResolveNow, Some(scope)).await
}

async fn insert(
    pool: &PgPool,
    operator: &Operator,
    action: Action,
    subject: Option<&ScopedKey>,
) -> sqlx::Result<Uuid> {
    let id = Uuid::now_v7();
    let entry = NewEntry {
        id,
        operator: &operator.session.operator,
        peer: &operator.peer,
        session: Some(operator.session.id),
        action,
        subject,
    };
    store::insert_entry(pool, &entry).await?;
    Ok(id)
}

/// Adds what came of it.
pub(super) async fn add_outcome(
    pool: &PgPool,
    scope: &ScopedKey,
    id: Uuid,
    outcome: &'static str,
) -> sqlx::Result<()> {
    store::add_outcome(pool, &scope.merchant_id, id, outcome).await
}

/// True until the session's time is over or it was signed out, by the database's clock. `expires_at`: seconds since 1970.
pub(super) async fn session_is_open(
    pool: &PgPool,
    session: Uuid,
    expires_at: i64,
) -> sqlx::Result<bool> {
    store::session_is_open(pool, session, expires_at).await
}

/// What was done to one key, latest first.
pub(super) async fn of_key(pool: &PgPool, scope: &ScopedKey) -> sqlx::Result<Vec<Entry>> {
    store::list_of_key(pool, scope).await
}
