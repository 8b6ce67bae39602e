//! What the tests work with.

pub mod certificates;
pub mod cluster;
pub mod collector;
pub mod deployed;
pub mod flaky;
pub mod gateway;
pub mod pair;
pub mod process;
pub mod proxy;
pub mod rows;
pub mod scripted;
pub mod service;
