//! The payments' metrics.

use metrics::{Unit, counter, describe_counter, describe_histogram};

use super::PaymentState;

/// Describes the payments' metrics to the process's recorder, and starts their counters at zero, because an alert sees no rise in a
/// counter that appears with its first event.
pub fn describe_metrics() {
    describe_counter!(
        "payonce_gateway_requests_total",
        "Calls to the gateway, by outcome: success, declined, hold_lapsed (the gateway released the hold), \
         refused (the content of the request), misconfigured (the gateway refuses this service), nothing_happened, unknown"
    );
    describe_histogram!(
        "payonce_gateway_request_seconds",
        Unit::Seconds,
        "Duration of calls to the gateway"
    );
    describe_counter!(
        "payonce_payments_total",
        "Charges that reached an outcome in this process, by the payment's state"
    );
    describe_counter!(
        "payonce_pending_refunds_ended_total",
        "Refunds that were pending at the gateway and have ended, by outcome: succeeded, failed"
    );
    for state in [
        PaymentState::Success,
        PaymentState::Authorized,
        PaymentState::Failed,
    ] {
        counter!("payonce_payments_total", "state" => state.as_str()).absolute(0);
    }
    for outcome in ["succeeded", "failed"] {
        counter!("payonce_pending_refunds_ended_total", "outcome" => outcome).absolute(0);
    }
}
