//! Idempotency for services on PostgreSQL: a client may repeat any request, and it is executed once.
//!
//! The engine keeps one row a scoped key (`merchant:operation:key`) in the caller's own database. It knows nothing of
//! payments, nor of HTTP. There are two ways through it:
//!
//! * **One transaction**, [`Engine::execute`], for work that lives in the database: the caller's writes, the key and the
//!   stored answer are committed together.
//! * **Two phases**, [`Engine::claim`] and [`Engine::settle`], for work that calls another system. The claim commits the key
//!   and what the caller is about to do; the call is made outside of any transaction; the settle commits the caller's
//!   result and the stored answer together.
//!
//! # What is guaranteed
//!
//! **Before the commit of [`Engine::execute`], or of a claim,** nothing has happened: whatever dies, the retry is a first
//! request. A request that was refused (mismatch, expired, in progress), or whose work returned an error, leaves no row.
//!
//! **At that commit** exactly one of any number of concurrent requests with the key goes on. The primary key of
//! `idempotency_keys` decides, then the row's lock: the others wait for it, see what was committed, and replay it.
//!
//! **After a claim** the key is in `PROCESSING` until it is settled or released. While its owner lives, the lease is renewed
//! and nobody else executes. When the owner has been silent for [`IdempotencyConfig::lock_timeout`], a duplicate or the
//! recovery takes the claim over with a higher attempt. Time alone decides nothing: a late owner's settle is fenced by owner
//! and attempt, changes nothing and reads the winner's answer, so all that the caller must see to is that its call can be
//! repeated under a name of its own ([`Permit::resource_id`]).
//!
//! **At the commit of a settle** the caller's result and the answer become visible together. If the commit's own answer is
//! lost, the row is locked and read back by owner and attempt; the outcome is never guessed. While the database cannot be
//! asked, the error is [`IdempotencyError::OutcomeUnknown`], and the same request finds the outcome later.
//!
//! **After it**, until [`IdempotencyConfig::ttl`] has passed since the first use, every request with the key and the same
//! fingerprint gets the stored bytes, and one with another fingerprint is refused.
//!
//! **Past its time** a final key counts as absent: its next use replaces it. Work that must not happen twice even then needs
//! a unique constraint of its own on what it makes (see [`Plan::Expired`]). A key in `PROCESSING` never expires.

mod caller;
mod cleanup;
mod cleanup_pace;
pub(crate) mod clock;
mod config;
mod engine;
mod error;
mod fair_queue;
#[cfg(test)]
mod fenced_writes;
mod fingerprint;
mod flights;
mod gate;
mod group;
mod inspector;
mod key;
mod lease;
mod metrics;
mod record;
mod replays;
mod response;
mod secrets;
mod settle;
mod store;
mod transaction;

pub use self::cleanup::{Cleaner, CleanupLimits, CleanupReport};
pub use self::config::{IdempotencyConfig, LARGEST_GROUP};
pub use self::engine::{Attempt, Claimant, Engine, GATE_RESULTS, Remembered, SignedRequest, Wait};
pub use self::error::IdempotencyError;
pub use self::fingerprint::{
    CanonicalFields, FINGERPRINT_VERSION, FingerprintSecrets, Fingerprinted, Mismatch,
};
pub use self::gate::{Claim, Gate, Permit, Plan, Released, Settled};
pub use self::group::{GroupCommit, GroupWriter, Grouped};
pub use self::inspector::Inspector;
pub use self::key::{IdempotencyKey, InvalidKey, MAX_KEY_LENGTH, Scope, ScopedKey};
pub use self::lease::Fence;
pub use self::metrics::describe_metrics;
pub use self::record::{Answer, KeyRecord, KeyState, Outcome};
pub use self::response::{InvalidResponse, StoredResponse};
pub use self::secrets::{ComparedSecrets, SecretsError, UnknownSecret};
pub use self::settle::{Settler, in_transaction};
pub use self::store::{
    Abandoned, FoundColumns, FoundKey, Inserted, KeyColumns, NewKey, ResponseColumns,
};
pub use self::transaction::Transaction;
pub use crate::database::{is_transient, may_have_committed};
