//! Metrics: what they are called, what they mean, and the process's one recorder.

use std::sync::OnceLock;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::idempotency::GATE_RESULTS;
use crate::payments::{Operation, PaymentState};
use crate::recovery;

/// From half a millisecond, a lone replay, to ten seconds, the longest wait for a gateway.
const SECONDS_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Up to the largest group.
const GROUP_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The process's one recorder, however many services it runs.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)?
        .set_buckets_for_metric(
            Matcher::Full("payonce_batch_size".to_owned()),
            GROUP_BUCKETS,
        )?
        .build_recorder();
    let handle = recorder.handle();
    // An embedding service may have a recorder of its own: then it gets the numbers.
    drop(metrics::set_global_recorder(recorder));
    describe();
    start_at_zero();
    Ok(HANDLE.get_or_init(|| handle).clone())
}

fn describe() {
    for (name, help) in [
        (
            "payonce_idempotency_checks_total",
            "Requests at the gate, by what came of them",
        ),
        (
            "payonce_gateway_requests_total",
            "Calls of the gateway, by what it answered",
        ),
        (
            "payonce_payments_total",
            "Charges that came to an outcome here, by the payment's state",
        ),
        (
            "payonce_recovered_total",
            "Claims of dead owners, by what came of them",
        ),
        (
            "payonce_http_requests_total",
            "Requests, by route and status",
        ),
    ] {
        describe_counter!(name, help);
    }
    for (name, unit, help) in [
        (
            "payonce_idempotency_wait_seconds",
            Unit::Seconds,
            "How long duplicates waited for the first",
        ),
        (
            "payonce_gateway_request_seconds",
            Unit::Seconds,
            "How long the gateway took",
        ),
        (
            "payonce_batch_size",
            Unit::Count,
            "Items of one group commit",
        ),
        (
            "payonce_http_request_seconds",
            Unit::Seconds,
            "How long requests took",
        ),
        (
            "payonce_database_wait_seconds",
            Unit::Seconds,
            "How long work waited for a connection",
        ),
    ] {
        describe_histogram!(name, unit, help);
    }
    for (name, help) in [
        (
            "payonce_keys_processing",
            "Keys in PROCESSING, in the whole database",
        ),
        (
            "payonce_keys_oldest_processing_seconds",
            "For how long the oldest of them has been",
        ),
        (
            "payonce_database_connections",
            "Connections of this process's pool",
        ),
        (
            "payonce_database_connections_idle",
            "Those that nobody has borrowed",
        ),
        (
            "payonce_database_waiting",
            "Work that waits for a connection now",
        ),
        (
            "payonce_gateway_circuit_open",
            "1 while the gateway is left alone after refusals in a row",
        ),
    ] {
        describe_gauge!(name, help);
    }
}

/// A counter that appears with its first event has no rise that an alert could see.
fn start_at_zero() {
    for operation in Operation::ALL {
        for result in GATE_RESULTS {
            counter!("payonce_idempotency_checks_total",
                "operation" => operation.as_str(), "result" => result)
            .absolute(0);
        }
    }
    for state in [
        PaymentState::Success,
        PaymentState::Authorized,
        PaymentState::Failed,
    ] {
        counter!("payonce_payments_total", "state" => state.as_str()).absolute(0);
    }
    for outcome in recovery::OUTCOMES {
        counter!("payonce_recovered_total", "outcome" => outcome).absolute(0);
    }
    metrics::gauge!("payonce_database_waiting").set(0);
}
