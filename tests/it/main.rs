//! The integration tests: real PostgreSQL, real sockets, real processes.

#[cfg(feature = "failpoints")]
mod crash_sweep;
mod engine;
mod gateway_faults;
mod guarantees;
mod orders_example;
mod payments;
mod problems;
mod programs;
mod stripe_adapter;
mod support;
