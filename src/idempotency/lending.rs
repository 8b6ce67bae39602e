//! What it costs to get a connection.

use std::future::Future;

use tokio::time::Instant;

const WAITING: &str = "payonce_database_waiting";

/// Waits for a pool to lend a connection, or to begin a transaction on one. How many wait and how long they waited are
/// metrics: a pool that is too small is seen there first.
pub(crate) async fn lent<T>(lending: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let _waiting = Waiting::start();
    let started = Instant::now();
    let lent = lending.await;
    metrics::histogram!("payonce_database_acquire_seconds").record(started.elapsed().as_secs_f64());
    lent
}

/// One that waits. It counts down when it gives up, too.
struct Waiting;

impl Waiting {
    fn start() -> Self {
        metrics::gauge!(WAITING).increment(1);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!(WAITING).decrement(1);
    }
}
