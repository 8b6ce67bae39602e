//! The integration tests: real PostgreSQL, real sockets, real processes.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test fails by a panic, and tells its story from beginning to end"
)]

mod backlog;
mod cells;
#[cfg(feature = "failpoints")]
mod chaos;
mod citus;
mod clients;
mod command_line;
mod console;
#[cfg(feature = "failpoints")]
mod crashes;
mod dead_database;
mod deployment;
mod doctor;
mod dropped;
mod durability;
mod durable;
mod engine;
mod failover;
mod fairness;
#[cfg(feature = "failpoints")]
mod fenced;
mod fingerprints;
mod gateway_faults;
mod gateway_trouble;
mod gateway_truth;
mod guarantees;
mod hot_path;
mod house;
mod library;
mod limits;
mod lists;
mod lost_answers;
mod metrics;
mod model;
mod mutants;
mod observability;
mod odd_requests;
mod odd_text;
mod openapi;
mod orders_example;
mod pages;
mod payments;
mod pgbouncer;
mod problems;
mod programs;
mod proxied;
mod races;
mod roles;
mod schema;
mod secrets;
mod settings;
mod shapes;
mod silence;
mod small_pools;
mod statements;
mod stored_answers;
mod stripe_adapter;
mod support;
mod telemetry;
mod tls;
mod told;
mod wrong_server;
