//! The integration tests: real PostgreSQL, real sockets, real processes.

mod support;
