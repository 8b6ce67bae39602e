//! What the tests work with.

pub mod gateway;
pub mod process;
pub mod service;
