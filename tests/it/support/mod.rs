//! Shared parts of the tests.

pub mod certificates;
pub mod cluster;
pub mod collector;
pub mod deployed;
pub mod flaky;
pub mod gateway;
pub mod haproxy;
pub mod pair;
pub mod process;
pub mod proxy;
pub mod rows;
pub mod scripted;
pub mod service;
pub mod skipped;

/// A pause between two checks while waiting for something. It leaves the processor to the work that causes it.
pub async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
}
