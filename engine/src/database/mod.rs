//! Connections for the engine: each wait is bounded, and none is lent inside a transaction.
//!
//! # What the engine needs of a pool
//!
//! * **Each connection is checked before it is lent**: it answers within a second, is outside a transaction, and its server
//!   takes writes. A future that is dropped while sqlx 0.9.0 sends BEGIN leaves a connection inside a transaction, and what
//!   its next borrower commits would be rolled back later. [`pool_options`] has the check.
//! * **Each session has its time-outs**: `statement_timeout` (at most 5 s), `lock_timeout` (shorter than that) and
//!   `idle_in_transaction_session_timeout` (at most 10 s), so that every wait ends, and the isolation level READ COMMITTED.
//!   [`session_options`] asks for them, and [`pool_options`] sets them where a pooler dropped them.
//! * **A session belongs to one connection**: a pooler in transaction mode does not keep settings, and is refused.
//! * **What is committed lasts**: `fsync`, `full_page_writes` and `synchronous_commit` are on.
//!
//! [`Engine::connect`](crate::Engine::connect) makes such a pool. [`Engine::start`](crate::Engine::start) takes one, and refuses a
//! pool that cannot keep the guarantees with an [`UnfitPool`] that says what to set.

mod address;
mod borrowed;
mod cluster;
mod contract;
mod errors;
mod interval;
mod pool;
mod session;
pub(crate) mod shortage;

pub use self::address::describe;
pub use self::borrowed::{
    BorrowedConnection, Bounded, BoundedTransaction, USE_TIMEOUT, Within, timed_out,
};
pub use self::cluster::{ClusterNode, Distribution, NodeSettings, cluster_nodes, distribution};
pub(crate) use self::cluster::{Node, Nodes};
pub use self::contract::{
    Durability, UnfitPool, check, settings_that_lose_commits, shares_sessions,
};
pub(crate) use self::errors::is_unsupported;
pub use self::errors::{
    has_sqlstate, is_lock_timeout, is_rejected_content, is_too_slow, is_transient,
    is_wrong_connection, may_be_one_items_fault, may_have_committed,
};
pub use self::interval::interval;
pub use self::pool::{ACQUIRE_TIMEOUT, MAX_LIFETIME, acquire, begin, pool_options};
pub use self::session::{SESSION_SETTINGS, session_options, takes_no_writes, takes_writes};
