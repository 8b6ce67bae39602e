//! How a first request takes its key.

use std::future::Future;

use crate::error::IdempotencyError;
use crate::key::ScopedKey;
use crate::record::Answer;
use crate::store::{FoundKey, Inserted, NewKey};

/// How a first request takes its key. The implementor decides what is written beside the key. The example of
/// [`grouped`](crate::grouped#claims-in-groups) implements it for claims that are committed in groups.
pub trait Claimant<T> {
    /// Inserts the key, and all that belongs to it, in one commit. It may be called more than once: a key that was in use may be
    /// free the next time.
    fn try_claim(
        &mut self,
        key: NewKey,
    ) -> impl Future<Output = Result<Attempt<T>, IdempotencyError>> + Send;

    /// Returns what the key created. It is asked for if the key's record is gone.
    fn remembered(
        &mut self,
        scope: &ScopedKey,
    ) -> impl Future<Output = Result<Option<Remembered>, IdempotencyError>> + Send;

    /// Called before an abandoned claim of the key is taken over. An error leaves the claim alone and answers the request: return
    /// one if this process cannot continue the work on the resource.
    fn may_take_over(
        &mut self,
        scope: &ScopedKey,
        resource_id: &str,
    ) -> impl Future<Output = Result<(), IdempotencyError>> + Send;
}

/// The result of an attempt to take a key, as in the example of [`grouped`](crate::grouped#claims-in-groups).
pub enum Attempt<T> {
    /// This request took the key, which is in `PROCESSING`.
    Claimed {
        /// The key's moments.
        inserted: Inserted,
        /// The resource that is created or changed.
        resource_id: String,
        /// What the caller needs for the call.
        work: T,
    },
    /// This request took the key, and its outcome is final.
    Finished(Answer),
    /// The key has expired, and its resource still exists.
    Expired(Remembered),
    /// The key is in use, and this is its final answer.
    Found(FoundKey),
    /// The key is in use, or its record is gone and the resource that it created exists. The engine then reads the record, and waits,
    /// replays, refuses or takes over.
    InUse,
}

/// What a key created, according to the caller's own tables.
///
/// ```no_run
/// use payonce_engine::ScopedKey;
/// use payonce_engine::grouped::Remembered;
///
/// /// For orders that keep their key under a unique constraint, so that a late repeat makes no second order.
/// async fn remembered(connection: &mut sqlx::PgConnection, key: &ScopedKey) -> sqlx::Result<Option<Remembered>> {
///     let row: Option<(String, chrono::DateTime<chrono::Utc>)> =
///         sqlx::query_as("select order_id, created_at from orders where merchant_id = $1 and idempotency_key = $2")
///             .bind(&key.merchant_id)
///             .bind(key.key.as_str())
///             .fetch_optional(connection)
///             .await?;
///     Ok(row.map(|(resource_id, created_at)| Remembered { resource_id, created_at }))
/// }
/// ```
pub struct Remembered {
    /// The resource's id.
    pub resource_id: String,
    /// When the resource was created.
    pub created_at: chrono::DateTime<chrono::Utc>,
}
