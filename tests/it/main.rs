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
mod odd_requests;
mod openapi;
mod orders_example;
mod pages;
mod payments;
mod problems;
mod programs;
mod secrets;
mod shapes;
mod stripe_adapter;
mod support;
mod telemetry;
