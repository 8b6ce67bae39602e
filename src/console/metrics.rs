//! The console's metrics.

use metrics::describe_counter;

/// Describes the console's metrics to the process's recorder.
pub fn describe_metrics() {
    describe_counter!(
        "payonce_console_sign_ins_total",
        "Attempts to sign in to the console, by result"
    );
}
