//! The engine's metrics.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use crate::engine::GATE_RESULTS;
use crate::recovery::Recovered;

/// Describes the engine's metrics to the process's recorder, and starts the counters of these operations at zero, because an alert
/// sees no rise in a counter that appears with its first event.
///
/// ```
/// use metrics_exporter_prometheus::PrometheusBuilder;
///
/// let recorder = PrometheusBuilder::new().build_recorder();
/// let page = recorder.handle();
/// metrics::with_local_recorder(&recorder, || payonce_engine::describe_metrics(["create_order"]));
/// assert!(page.render().contains(r#"payonce_idempotency_checks_total{operation="create_order",result="hit"} 0"#));
/// ```
pub fn describe_metrics(operations: impl IntoIterator<Item = &'static str>) {
    describe_counter!(
        "payonce_idempotency_checks_total",
        "Requests with a key, by result: miss (claimed), hit (answered), waited (answered after a wait), mismatch, in_use (in progress), takeover"
    );
    describe_histogram!(
        "payonce_idempotency_wait_seconds",
        Unit::Seconds,
        "Time that duplicates waited for the first request"
    );
    describe_histogram!(
        "payonce_batch_size",
        Unit::Count,
        "Number of items in a group commit"
    );
    describe_gauge!(
        "payonce_commit_seconds",
        Unit::Seconds,
        "Time of a commit of a message alone, as a lane of group commit measured it last"
    );
    describe_counter!(
        "payonce_recovered_total",
        "Claims of dead owners, by the outcome of the attempt to resolve them; misconfigured: not touched, because this process \
         cannot resume them until an operator changes something"
    );
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
    for operation in operations {
        for result in GATE_RESULTS {
            counter!("payonce_idempotency_checks_total", "operation" => operation, "result" => result)
                .absolute(0);
        }
    }
    for outcome in Recovered::ALL {
        counter!("payonce_recovered_total", "outcome" => outcome.label()).absolute(0);
    }
}
