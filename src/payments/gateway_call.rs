//! The gateway's call, and what its answer means for the claim.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::sanitize::{self, Sanitize};
use super::{PaymentError, Payments};
use crate::gateway::{Decline, Gateway, GatewayError};
use crate::idempotency::{Fence, Permit};

/// A gateway forgets its idempotency keys after a day. From this age on a call is not repeated; the gateway is asked what
/// happened instead. The age is measured right before the call, so that a call under way has four hours to end.
const ASK_INSTEAD_OF_CALLING: Duration = Duration::from_secs(20 * 60 * 60);

/// From this age on, a gateway that does not know a call never received it. Before that age, a call that was made just within
/// [`ASK_INSTEAD_OF_CALLING`] may still be under way.
const ABSENCE_IS_CERTAIN: Duration = Duration::from_secs(21 * 60 * 60);

/// What the gateway's answer, or its absence, means for the claim.
pub(super) enum Called<T> {
    /// The outcome is known: settle.
    Known(Result<T, Decline>),
    /// The gateway released the payment's hold, which is final: settle.
    HoldLapsed { reason: Option<String> },
    /// Certainly nothing happened: release the claim, and return this error.
    NothingHappened(PaymentError),
    /// Leave the claim open.
    Unresolved(Unresolved),
}

/// Why a claim stays open.
pub(super) enum Unresolved {
    /// Only the gateway knows the outcome.
    Unknown,
    /// The gateway refuses this service, and an earlier attempt may have reached it.
    Misconfigured { reason: String },
    /// Another process has taken the claim over, and nothing was called.
    ClaimLost,
}

impl Payments {
    /// Calls the gateway, or asks it what happened if a call could be a second one. Right before, the claim is confirmed to be
    /// still held, in case this process was suspended since it took the claim.
    pub(super) async fn call<T: Sanitize>(
        &self,
        permit: &Permit,
        gateway: &dyn Gateway,
        operation: &'static str,
        call: impl Future<Output = Result<T, GatewayError>>,
        ask: impl Future<Output = Result<Option<T>, GatewayError>>,
    ) -> Called<T> {
        failpoint!("call-before");
        let claim = permit.claim();
        let age = match self.engine().fence(permit).await {
            Ok(Fence::Held { age }) => age,
            Ok(Fence::Lost) => {
                tracing::warn!(key = %claim.scope, resource = %claim.resource_id, attempt = claim.attempt,
                    "the claim was taken over before its call; nothing is called");
                return Called::Unresolved(Unresolved::ClaimLost);
            }
            Err(error) => {
                tracing::warn!(key = %claim.scope, resource = %claim.resource_id, attempt = claim.attempt, %error,
                    "the lease could not be renewed; nothing is called");
                return Called::Unresolved(Unresolved::Unknown);
            }
        };
        let started = Instant::now();
        let phase = phase!(
            "gateway",
            otel.kind = "client",
            payonce.gateway = gateway.kind(),
            payonce.operation = operation,
            payonce.resource = claim.resource_id.as_str(),
            payonce.outcome = tracing::field::Empty
        );
        let is_call = age.is_some_and(|age| age < ASK_INSTEAD_OF_CALLING);
        let answer = if is_call {
            self.in_time(call).await
        } else {
            let found = self.in_time(ask).await;
            found.and_then(|found| found.ok_or_else(|| absent(age)))
        };
        failpoint!("call-answered");
        phase.record("payonce.outcome", outcome_of(&answer));
        drop(phase);
        count_call(gateway.kind(), operation, &answer, started.elapsed());
        judge(permit, is_call, sanitize::answer(answer))
    }

    /// The gateway's answer, or [`GatewayError::Unknown`] if there is none within the time-out.
    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        let answer = timeout(self.gateway_timeout(), answer).await;
        answer.unwrap_or_else(|_| {
            Err(GatewayError::Unknown {
                reason: "no answer in time".to_owned(),
            })
        })
    }
}

/// What an answer means, given what earlier attempts may have done. `is_call` is true for the answer to a call, and false for the
/// answer to a question about one.
fn judge<T>(permit: &Permit, is_call: bool, answer: Result<T, GatewayError>) -> Called<T> {
    let claim = permit.claim();
    let is_first = claim.attempt == 1;
    match answer {
        Ok(done) => Called::Known(Ok(done)),
        Err(GatewayError::Declined(decline)) => Called::Known(Err(decline)),
        Err(GatewayError::HoldLapsed { reason }) => Called::HoldLapsed { reason },
        // This also tells about earlier attempts, which made the same call under the same key: had one been carried out, the
        // gateway would have answered with its result.
        Err(GatewayError::Refused(refusal)) if is_call => {
            tracing::info!(key = %claim.scope, resource = %claim.resource_id, code = refusal.code, param = refusal.param,
                "the gateway rejected the request");
            Called::NothingHappened(PaymentError::GatewayRefused(refusal))
        }
        Err(GatewayError::Misconfigured { reason }) => {
            tracing::error!(key = %claim.scope, resource = %claim.resource_id, reason, "the gateway refuses this service");
            match is_first {
                true => Called::NothingHappened(PaymentError::GatewayMisconfigured {
                    reason,
                    may_have_charged: false,
                }),
                false => Called::Unresolved(Unresolved::Misconfigured { reason }),
            }
        }
        // An earlier attempt may have reached the gateway, so this is certain for a first attempt only.
        Err(GatewayError::NothingHappened { reason }) if is_first => {
            tracing::warn!(key = %claim.scope, resource = %claim.resource_id, reason, "nothing reached the gateway");
            Called::NothingHappened(PaymentError::GatewayUnavailable)
        }
        Err(error) => {
            tracing::warn!(key = %claim.scope, resource = %claim.resource_id, attempt = claim.attempt, %error,
                "the gateway's answer is not known yet");
            Called::Unresolved(Unresolved::Unknown)
        }
    }
}

/// What it means that the gateway, asked about an old call, knows of none.
fn absent(age: Option<Duration>) -> GatewayError {
    if age.is_none_or(|age| age < ABSENCE_IS_CERTAIN) {
        return GatewayError::Unknown {
            reason: "the gateway knows of no call, and one may still be under way".to_owned(),
        };
    }
    GatewayError::Declined(Decline::new(
        "never_reached_gateway",
        "The request never reached the gateway",
    ))
}

/// Counts an answer, and records how long it took.
pub(super) fn count_call<T>(
    gateway: &'static str,
    operation: &'static str,
    answer: &Result<T, GatewayError>,
    took: Duration,
) {
    metrics::counter!("payonce_gateway_requests_total",
        "gateway" => gateway, "operation" => operation, "outcome" => outcome_of(answer))
    .increment(1);
    metrics::histogram!("payonce_gateway_request_seconds", "gateway" => gateway, "operation" => operation)
        .record(took.as_secs_f64());
}

const OUTCOMES: [&str; 7] = [
    "success",
    "declined",
    "hold_lapsed",
    "refused",
    "misconfigured",
    "nothing_happened",
    "unknown",
];

fn outcome_of<T>(answer: &Result<T, GatewayError>) -> &'static str {
    let [
        success,
        declined,
        hold_lapsed,
        refused,
        misconfigured,
        nothing_happened,
        unknown,
    ] = OUTCOMES;
    match answer {
        Ok(_) => success,
        Err(GatewayError::Declined(_)) => declined,
        Err(GatewayError::HoldLapsed { .. }) => hold_lapsed,
        Err(GatewayError::Refused(_)) => refused,
        Err(GatewayError::Misconfigured { .. }) => misconfigured,
        Err(GatewayError::NothingHappened { .. }) => nothing_happened,
        Err(GatewayError::Unknown { .. }) => unknown,
    }
}

/// Starts each counter at zero, because an alert cannot see the rise of a counter that appears with its first event.
pub(super) fn start_counting_calls(gateway: &'static str) {
    for operation in ["tokenize", "charge", "capture", "cancel", "refund"] {
        for outcome in OUTCOMES {
            metrics::counter!("payonce_gateway_requests_total",
                "gateway" => gateway, "operation" => operation, "outcome" => outcome)
            .absolute(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_believed_an_hour_after_the_last_call() {
        let moment = Duration::from_millis(1);
        for age in [
            None,
            Some(ASK_INSTEAD_OF_CALLING),
            Some(ABSENCE_IS_CERTAIN - moment),
        ] {
            assert!(
                matches!(absent(age), GatewayError::Unknown { .. }),
                "{age:?}"
            );
        }
        let declined = absent(Some(ABSENCE_IS_CERTAIN));
        assert!(matches!(declined, GatewayError::Declined(_)));
    }
}
