//! What recovery counts.

use metrics::{counter, describe_counter};

use super::{OUTCOMES, Recovered};

/// Describes recovery's metrics to the process's recorder, and starts them at zero.
pub fn describe_metrics() {
    describe_counter!(
        "payonce_recovered_total",
        "Claims of dead owners, by the outcome of the attempt to resolve them; misconfigured: not touched, because their gateway \
         is not set up in this process or refuses this service"
    );
    for outcome in OUTCOMES {
        counter!("payonce_recovered_total", "outcome" => outcome).absolute(0);
    }
}

pub(super) fn count(recovered: Recovered) {
    counter!("payonce_recovered_total", "outcome" => recovered.label()).increment(1);
}
