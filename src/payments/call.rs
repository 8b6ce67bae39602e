//! The gateway's call, and what its answer means for the claim.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Payments;
use crate::gateway::{Decline, GatewayError};
use crate::idempotency::Permit;

/// A gateway forgets its idempotency keys after a day: past this age a call is not made again, the gateway is asked.
const ASK_INSTEAD_OF_CALLING: Duration = Duration::from_secs(20 * 60 * 60);

/// What the gateway's answer, or its absence, means for the claim.
pub(super) enum Called<T> {
    /// It is known: settle.
    Known(Result<T, Decline>),
    /// It is certain that nothing happened: give the claim back.
    Nothing,
    /// Only the gateway knows: leave the claim to whoever asks next.
    Unknown,
}

impl Payments {
    /// Calls the gateway, or asks it where a call could be a second one.
    pub(super) async fn call<T>(
        &self,
        permit: &Permit,
        operation: &'static str,
        call: impl Future<Output = Result<T, GatewayError>>,
        ask: impl Future<Output = Result<Option<T>, GatewayError>>,
    ) -> Called<T> {
        failpoint!("call-before");
        let started = Instant::now();
        let claim = permit.claim();
        let phase = phase!(
            "gateway",
            otel.kind = "client",
            payonce.gateway = self.gateway().kind(),
            payonce.operation = operation,
            payonce.resource = claim.resource_id.as_str(),
            payonce.outcome = tracing::field::Empty
        );
        let answer = if claim.age < ASK_INSTEAD_OF_CALLING {
            timeout(self.gateway_timeout(), call).await
        } else {
            let asked = timeout(self.gateway_timeout(), ask).await;
            asked.map(|answer| answer.and_then(|found| found.ok_or_else(never_happened)))
        };
        let answer = answer.unwrap_or_else(|_| {
            Err(GatewayError::Unknown {
                reason: "no answer in time".to_owned(),
            })
        });
        failpoint!("call-answered");
        phase.record("payonce.outcome", outcome_of(&answer));
        drop(phase);
        count_call(self.gateway().kind(), operation, &answer, started.elapsed());
        match answer {
            Ok(done) => Called::Known(Ok(done)),
            Err(GatewayError::Declined(decline)) => Called::Known(Err(decline)),
            // An earlier attempt may have reached the gateway: only a first one's "nothing happened" is the whole truth.
            Err(GatewayError::NothingHappened { reason }) if claim.attempt == 1 => {
                tracing::warn!(key = %claim.scope, resource = %claim.resource_id, reason, "nothing reached the gateway");
                Called::Nothing
            }
            Err(error) => {
                tracing::warn!(key = %claim.scope, resource = %claim.resource_id, attempt = claim.attempt, %error,
                    "the gateway's answer is not known yet");
                Called::Unknown
            }
        }
    }
}

/// The gateway was asked about a call of long ago, and is certain that it never came.
fn never_happened() -> GatewayError {
    GatewayError::Declined(Decline::new(
        "never_reached_gateway",
        "The request never reached the gateway",
    ))
}

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

const OUTCOMES: [&str; 6] = [
    "success",
    "declined",
    "refused",
    "misconfigured",
    "nothing_happened",
    "unknown",
];

fn outcome_of<T>(answer: &Result<T, GatewayError>) -> &'static str {
    let [
        success,
        declined,
        refused,
        misconfigured,
        nothing_happened,
        unknown,
    ] = OUTCOMES;
    match answer {
        Ok(_) => success,
        Err(GatewayError::Declined(_)) => declined,
        Err(GatewayError::Refused(_)) => refused,
        Err(GatewayError::Misconfigured { .. }) => misconfigured,
        Err(GatewayError::NothingHappened { .. }) => nothing_happened,
        Err(GatewayError::Unknown { .. }) => unknown,
    }
}

/// A counter that appears with its first event has no rise that an alert could see.
pub(super) fn start_counting_calls(gateway: &'static str) {
    for operation in ["tokenize", "charge", "capture", "cancel", "refund"] {
        for outcome in OUTCOMES {
            metrics::counter!("payonce_gateway_requests_total",
                "gateway" => gateway, "operation" => operation, "outcome" => outcome)
            .absolute(0);
        }
    }
}
