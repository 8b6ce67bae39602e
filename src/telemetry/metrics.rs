//! Metrics: what they are called, what they mean, and the process's one recorder.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};

use crate::idempotency::{GATE_RESULTS, Recovered};
use crate::payments::{Operation, PaymentState};

/// From half a millisecond, a lone replay, to ten seconds, the longest wait for a gateway.
const SECONDS_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Up to the largest group.
const GROUP_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// How often recorded samples become part of their histograms. At 1,000 payments a second some 10,000 samples of 8 bytes are
/// kept in between.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Adds up the samples of histograms, again and again. The recorder keeps each sample until it is added up, and otherwise only
/// a scrape of `/metrics` does that: without one, memory would grow for as long as the process lives.
pub async fn keep_up(recorder: PrometheusHandle, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}

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
            "Calls of the gateway, by how they ended: success, declined, hold_lapsed (the gateway let go of what was held), \
             refused (the request's content), misconfigured (the gateway refuses this service), nothing_happened, unknown",
        ),
        (
            "payonce_payments_total",
            "Charges that came to an outcome here, by the payment's state",
        ),
        (
            "payonce_recovered_total",
            "Claims of dead owners, by how the attempt to resolve them ended; misconfigured: left alone, because their gateway \
             is not set up in this process or refuses this service",
        ),
        (
            "payonce_pending_refunds_ended_total",
            "Refunds that were pending at the gateway and have ended, by outcome: succeeded, failed",
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
    for outcome in Recovered::ALL {
        counter!("payonce_recovered_total", "outcome" => outcome.label()).absolute(0);
    }
    for outcome in ["succeeded", "failed"] {
        counter!("payonce_pending_refunds_ended_total", "outcome" => outcome).absolute(0);
    }
    metrics::gauge!("payonce_database_waiting").set(0);
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusRecorder;

    use super::*;

    fn recorder() -> PrometheusRecorder {
        let builder = PrometheusBuilder::new().set_buckets(SECONDS_BUCKETS);
        builder.expect("buckets").build_recorder()
    }

    fn record(recorder: &PrometheusRecorder, samples: u32) {
        metrics::with_local_recorder(recorder, || {
            let histogram = metrics::histogram!("took_seconds");
            (0..samples).for_each(|_| histogram.record(0.01));
        });
    }

    /// The samples that were added up. A recorder shows these by its `Debug`; unlike `render`, that adds up nothing itself.
    fn added_up(recorder: &PrometheusRecorder) -> u32 {
        let shown = format!("{recorder:?}");
        let Some((_, histogram)) = shown.split_once("Histogram { count: ") else {
            return 0;
        };
        let digits = histogram.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    #[tokio::test]
    async fn samples_do_not_wait_for_a_scrape() {
        let recorder = recorder();
        record(&recorder, 1000);
        assert_eq!(added_up(&recorder), 0, "nobody has added them up yet");
        let upkeep = tokio::spawn(keep_up(recorder.handle(), Duration::from_millis(1)));
        let mut ticks = interval(Duration::from_millis(1));
        for recorded in [1000, 2000, 3000] {
            let all_added_up = async {
                while added_up(&recorder) < recorded {
                    ticks.tick().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), all_added_up)
                .await
                .expect("added up");
            assert_eq!(added_up(&recorder), recorded);
            record(&recorder, 1000);
        }
        upkeep.abort();
    }
}
