//! The process's one recorder of metrics. Each module describes the metrics that it raises (`describe_metrics`).

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};

/// From half a millisecond (a single replay) to ten seconds (the longest wait for a gateway).
const SECONDS_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Up to the size of the largest group.
const GROUP_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// How often recorded samples are added to their histograms. At 1,000 payments per second, some 10,000 samples of 8 bytes accumulate
/// in between.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Adds recorded samples to their histograms at intervals. The recorder keeps each sample until then. Otherwise only a scrape of
/// `/metrics` does this, so without scrapes memory would grow for as long as the process runs.
pub async fn keep_up(recorder: PrometheusHandle, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}

/// Returns the process's one recorder. All services of a process share it.
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
    // An embedding service may have installed its own recorder, which then gets the metrics.
    drop(metrics::set_global_recorder(recorder));
    Ok(HANDLE.get_or_init(|| handle).clone())
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
