//! payonce: a payments service on PostgreSQL whose clients may repeat any request and are charged once, and the
//! idempotency engine that it is built on.
//!
//! The way of a request, from the outside in:
//!
//! * [`http`]: routes, what is read from a request and written to a reply.
//! * [`payments`]: what a payment is, and what may be done to it.
//! * [`idempotency`]: who executes, and what everybody else is told. A library of its own: it knows nothing of payments,
//!   and an embedding service needs nothing else (see `examples/orders.rs`).
//! * [`gateway`]: whoever moves the money, called between two transactions.
//! * [`recovery`]: goes on with what a dead process left behind, by the same code.
//! * [`console`]: the operator's pages. Off unless it is asked for; it knows actix-web, too.
//!
//! Beside it: [`merchants`] (who is paid, and API keys), [`refused_reuses`] (what the console shows of keys that came again
//! with another request), [`problem`] (every refusal, in one table), [`input`], [`money`], [`cards`], and what starts and
//! stops it all: [`config`], [`database`], [`startup`], [`telemetry`], [`tls`], [`cli`], [`doctor`].

/// The idempotency engine, a package of its own.
#[macro_use(failpoint, phase)]
pub extern crate payonce_engine as idempotency;

pub mod cards;
pub mod cli;
pub mod config;
pub mod console;
pub mod database;
pub mod demo;
pub mod doctor;
pub mod gateway;
pub mod http;
pub mod input;
pub mod merchants;
pub mod money;
pub mod payments;
pub mod problem;
pub mod recovery;
pub mod refused_reuses;
pub mod settings;
pub mod startup;
pub mod telemetry;
pub mod tls;

/// The schema, as migrations that are compiled in. An embedding service that uses the engine alone needs
/// [`idempotency::MIGRATOR`] only.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
