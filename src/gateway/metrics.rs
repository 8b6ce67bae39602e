//! The gateways' metrics.

use metrics::describe_gauge;

/// Describes the gateways' metrics to the process's recorder.
pub fn describe_metrics() {
    describe_gauge!(
        "payonce_gateway_circuit_open",
        "1 while a gateway is not called, after several failures in a row"
    );
}
