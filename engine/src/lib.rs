#![doc = include_str!("../README.md")]
// Users of a library depend on its documentation.
#![warn(missing_docs, clippy::missing_errors_doc)]

/// A step at which a test aborts or stops the process. It expands to nothing without the calling crate's feature `failpoints`.
#[doc(hidden)]
#[macro_export]
macro_rules! failpoint {
    ($name:expr) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoints::reach($name);
    };
}

/// A span of one phase of a request, for a collector of traces. It lasts until it is dropped. It is never entered, so log lines
/// still belong to the request's span, and the engine's tasks are that span's children.
#[doc(hidden)]
#[macro_export]
macro_rules! phase {
    ($name:literal $(, $($fields:tt)*)?) => {
        tracing::debug_span!(target: "payonce::phases", $name $(, $($fields)*)?)
    };
}

mod caller;
mod claimant;
mod cleanup;
pub mod clock;
mod config;
pub mod database;
mod engine;
mod error;
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub mod failpoints;
#[cfg(test)]
mod fenced_writes;
mod fingerprint;
mod flights;
mod gate;
pub mod grouped;
mod inspector;
mod key;
mod lease;
mod metrics;
mod migrate;
mod record;
mod recovery;
mod replays;
mod response;
mod secrets;
mod settle;
mod store;
mod transaction;

// For every user.
pub use self::cleanup::{Cleaner, CleanupLimits, CleanupReport};
pub use self::config::IdempotencyConfig;
pub use self::database::{Durability, UnfitPool, is_transient, may_have_committed};
pub use self::engine::{Engine, SignedRequest, Wait};
pub use self::error::IdempotencyError;
pub use self::fingerprint::{CanonicalFields, FingerprintSecrets, Fingerprinted, Mismatch};
pub use self::gate::{Claim, Gate, Permit, Plan, Released, Settled};
pub use self::key::{IdempotencyKey, InvalidKey, InvalidScope, MAX_KEY_LENGTH, Scope, ScopedKey};
pub use self::lease::Fence;
pub use self::metrics::describe_metrics;
pub use self::migrate::{MIGRATOR, migrate};
pub use self::record::{Answer, Outcome};
pub use self::recovery::{LONGEST_RECOVERY_PAUSE, Recovered, Recovery, RecoveryReport, Resume};
pub use self::response::{InvalidResponse, StoredResponse};
pub use self::transaction::Transaction;

/// Reads records from outside of a service, for operators' programs and pages.
///
/// ```no_run
/// # async fn look(pool: sqlx::PgPool, key: payonce_engine::ScopedKey) -> Result<(), payonce_engine::IdempotencyError> {
/// use payonce_engine::records::{Inspector, KeyState};
///
/// // No secret is needed, and nothing is changed.
/// match Inspector::new(pool).find(&key).await? {
///     None => println!("the key was never used, or its record has been deleted"),
///     Some(record) if record.state == KeyState::Processing => println!("in progress since {}", record.created_at),
///     Some(record) => println!("final, and remembered until {}", record.expires_at),
/// }
/// # Ok(())
/// # }
/// ```
pub mod records {
    pub use crate::engine::GATE_RESULTS;
    pub use crate::inspector::Inspector;
    pub use crate::record::{KeyRecord, KeyState};
    pub use crate::secrets::{ComparedSecrets, SecretsError};
    pub use crate::store::{Abandoned, UnknownSecret};
}
