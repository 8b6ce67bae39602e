//! The integration tests: real PostgreSQL, real sockets, real processes.

mod clients;
mod command_line;
#[cfg(feature = "failpoints")]
mod crash_sweep;
mod doctor;
mod dropped;
mod durability;
mod engine;
mod fairness;
mod fingerprints;
mod gateway_faults;
mod gateway_trouble;
mod guarantees;
mod library;
mod limits;
mod lost_answers;
mod metrics;
mod odd_requests;
mod orders_example;
mod payments;
mod problems;
mod programs;
mod secrets;
mod settings;
mod shapes;
mod stripe_adapter;
mod support;
