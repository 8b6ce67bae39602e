//! What the pool counts.

use metrics::{Unit, describe_gauge, describe_histogram, gauge};

/// Describes the pool's metrics to the process's recorder, and starts them at zero.
pub fn describe_metrics() {
    describe_histogram!(
        "payonce_database_wait_seconds",
        Unit::Seconds,
        "Time that work waited for a connection"
    );
    describe_gauge!(
        "payonce_database_waiting",
        "Work that is waiting for a connection"
    );
    gauge!("payonce_database_waiting").set(0);
}
