//! The integration tests: real PostgreSQL, real sockets, real processes.

mod engine;
mod guarantees;
mod orders_example;
mod payments;
mod problems;
mod programs;
mod stripe_adapter;
mod support;
