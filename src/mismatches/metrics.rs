//! The metrics of noted mismatches.

use metrics::{counter, describe_counter};

/// Describes these metrics to the process's recorder.
pub fn describe_metrics() {
    describe_counter!(
        "payonce_mismatches_dropped_total",
        "Mismatches that were not noted for the console, because the queue was full or the database failed"
    );
}

pub(super) fn count_dropped(mismatches: u64) {
    counter!("payonce_mismatches_dropped_total").increment(mismatches);
}
