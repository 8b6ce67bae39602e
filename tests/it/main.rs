//! The integration tests: real PostgreSQL, real sockets, real processes.

mod command_line;
#[cfg(feature = "failpoints")]
mod crash_sweep;
mod dropped;
mod durability;
mod engine;
mod fingerprints;
mod gateway_faults;
mod gateway_trouble;
mod guarantees;
mod library;
mod lost_answers;
mod metrics;
mod observability;
mod odd_requests;
mod orders_example;
mod payments;
mod problems;
mod programs;
mod proxied;
mod roles;
mod schema;
mod secrets;
mod shapes;
mod statements;
mod stripe_adapter;
mod support;
mod tls;
