//! What the tests work with.

pub mod cluster;
pub mod collector;
pub mod gateway;
pub mod process;
pub mod proxy;
pub mod scripted;
pub mod service;
