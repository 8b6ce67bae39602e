//! The integration tests: real PostgreSQL, real sockets, real processes.

mod backlog;
mod chaos;
mod command_line;
mod console;
#[cfg(feature = "failpoints")]
mod crashes;
mod doctor;
mod dropped;
mod durability;
mod engine;
mod fingerprints;
mod gateway_faults;
mod gateway_trouble;
mod guarantees;
mod hot_path;
mod library;
mod limits;
mod lost_answers;
mod metrics;
mod observability;
mod odd_requests;
mod openapi;
mod orders_example;
mod pages;
mod payments;
mod problems;
mod programs;
mod races;
mod roles;
mod schema;
mod secrets;
mod settings;
mod shapes;
mod statements;
mod stripe_adapter;
mod support;
