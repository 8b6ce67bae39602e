//! How a first request takes its key.

use std::future::Future;

use crate::error::IdempotencyError;
use crate::key::ScopedKey;
use crate::record::Answer;
use crate::store::{FoundKey, Inserted, NewKey};

/// How a first request takes its key. The engine asks; what is written beside the key is the implementor's.
pub trait Claimant<T> {
    /// Inserts the key, and all that belongs to it, in one commit.
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

/// The result of an attempt to take a key.
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
    /// The key's resource was created long ago.
    Expired(Remembered),
    /// It is in use, and final.
    Found(FoundKey),
    /// It is in use, or its record is gone and the resource that it created exists.
    InUse,
}

/// What a key created, according to the caller's own tables.
pub struct Remembered {
    /// Its id.
    pub resource_id: String,
    /// When it was made.
    pub created_at: chrono::DateTime<chrono::Utc>,
}
