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

/// A port of this machine on which nobody listens. Somebody else may take it.
pub fn free_port() -> u16 {
    let bound = std::net::TcpListener::bind("127.0.0.1:0");
    let address = bound.and_then(|free| free.local_addr());
    address.expect("a port").port()
}
