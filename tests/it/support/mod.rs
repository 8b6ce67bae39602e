//! What the tests work with.

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

/// Between two looks at something that is awaited. It leaves the processor to whatever brings it about.
pub async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
}
