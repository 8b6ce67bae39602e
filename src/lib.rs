//! payonce: a payments service on PostgreSQL whose clients may repeat any request and are charged once, and the
//! idempotency engine that it is built on.
//!
//! A request passes through these modules, from the outside in:
//!
//! * [`http`]: routes, requests and replies.
//! * [`payments`]: payments and their operations.
//! * [`idempotency`]: the engine, which decides which request executes and what the others get. It knows nothing of payments, and an
//!   embedding service needs nothing else (see `examples/orders.rs`).
//! * [`gateway`]: the gateways that move the money, called between two transactions.
//! * [`recovery`]: finishes the work of dead processes, by the same code.
//! * [`console`]: the operators' pages, off by default. It knows actix-web, too.
//!
//! Also: [`merchants`] (merchants and API keys), [`mismatches`] (requests that came under a key of another request, for the console),
//! [`problem`] (all refusals in one table), [`input`], [`money`], [`cards`], and what starts and stops the service: [`config`],
//! [`settings`], [`database`], [`startup`], [`telemetry`], [`tls`], [`cli`], [`doctor`], [`demo`].

/// The idempotency engine, which is a separate package.
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
pub mod mismatches;
pub mod money;
pub mod payments;
pub mod problem;
pub mod recovery;
pub mod settings;
pub mod startup;
pub mod telemetry;
pub mod tls;

/// The schema, as migrations that are compiled in. An embedding service that uses the engine alone needs
/// [`idempotency::MIGRATOR`] only.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// The Rust in these documents compiles.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
}
