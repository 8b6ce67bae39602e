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

    /// What the key made, where its record is gone.
    fn remembered(
        &mut self,
        scope: &ScopedKey,
    ) -> impl Future<Output = Result<Option<Remembered>, IdempotencyError>> + Send;

    /// Asked before an abandoned claim of the key is taken over. An error leaves the claim alone and is what the request is
    /// answered: return one where this process cannot go on with the resource.
    fn may_take_over(
        &mut self,
        scope: &ScopedKey,
        resource_id: &str,
    ) -> impl Future<Output = Result<(), IdempotencyError>> + Send;
}

/// The result of an attempt to take a key.
pub enum Attempt<T> {
    /// It is ours, in `PROCESSING`.
    Claimed {
        /// The key's moments.
        inserted: Inserted,
        /// What is being made or changed.
        resource_id: String,
        /// What the caller needs for the call.
        work: T,
    },
    /// It is ours, and final.
    Finished(Answer),
    /// What it makes was made long ago.
    Expired(Remembered),
    /// It is in use, and final.
    Found(FoundKey),
    /// It is in use, or its record is gone while what it made is there.
    InUse,
}

/// What a key made, as the caller's own tables remember it.
pub struct Remembered {
    /// Its id.
    pub resource_id: String,
    /// When it was made.
    pub created_at: chrono::DateTime<chrono::Utc>,
}
