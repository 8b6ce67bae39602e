//! The gateway's call, and what its answer means for the claim.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Payments;
use super::storable::{self, Storable};
use crate::gateway::{Decline, Gateway, GatewayError, Refusal};
use crate::idempotency::{Fence, Permit};

/// A gateway forgets its idempotency keys after a day: past this age a call is not made again, the gateway is asked. The age is
/// the one right before the call, so four hours are left for a call that is under way.
const ASK_INSTEAD_OF_CALLING: Duration = Duration::from_secs(20 * 60 * 60);

/// From this age on, a gateway that knows nothing of a call never got it. Before, a call that was made just within
/// [`ASK_INSTEAD_OF_CALLING`] may still be under way.
const ABSENCE_IS_CERTAIN: Duration = Duration::from_secs(21 * 60 * 60);

/// What the gateway's answer, or its absence, means for the claim.
pub(super) enum Called<T> {
    /// It is known: settle.
    Known(Result<T, Decline>),
    /// It is certain that nothing happened: give the claim back.
    Nothing(NothingDone),
    /// Only the gateway knows: leave the claim to whoever asks next.
    Unknown,
    /// The gateway refuses this service, and an earlier attempt may have reached it: leave the claim until it is put right.
    Barred { reason: String },
    /// The gateway let go of what was held: final.
    Lapsed { reason: Option<String> },
    /// The claim is somebody else's now: nothing was called.
    Lost,
}

/// Why nothing happened.
pub(super) enum NothingDone {
    /// The gateway could not be reached, or had no time.
    Unavailable,
    /// The request's content is wrong.
    Refused(Refusal),
    /// The gateway refuses this service.
    Misconfigured { reason: String },
}

impl Payments {
    /// Calls the gateway, or asks it where a call could be a second one. Right before, the claim is confirmed to be still ours,
    /// however long this process stood still since it took it.
    pub(super) async fn call<T: Storable>(
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
                return Called::Lost;
            }
            Err(error) => {
                tracing::warn!(key = %claim.scope, resource = %claim.resource_id, attempt = claim.attempt, %error,
                    "the lease could not be renewed; nothing is called");
                return Called::Unknown;
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
        judge(permit, is_call, storable::answer(answer))
    }

    /// The gateway's answer, or that it is not known where it does not come within the gateway's time-out.
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

/// What an answer means, given what earlier attempts may have done. `is_call`: it answers a call, not a question.
fn judge<T>(permit: &Permit, is_call: bool, answer: Result<T, GatewayError>) -> Called<T> {
    let claim = permit.claim();
    let is_first = claim.attempt == 1;
    match answer {
        Ok(done) => Called::Known(Ok(done)),
        Err(GatewayError::Declined(decline)) => Called::Known(Err(decline)),
        Err(GatewayError::HoldLapsed { reason }) => Called::Lapsed { reason },
        // The answer to the same call under the same key is the word on earlier attempts, too: had one been carried out, the
        // gateway would answer what it did.
        Err(GatewayError::Refused(refusal)) if is_call => {
            tracing::info!(key = %claim.scope, resource = %claim.resource_id, code = refusal.code, param = refusal.param,
                "the gateway found the request wrong");
            Called::Nothing(NothingDone::Refused(refusal))
        }
        Err(GatewayError::Misconfigured { reason }) => {
            tracing::error!(key = %claim.scope, resource = %claim.resource_id, reason, "the gateway refuses this service");
            match is_first {
                true => Called::Nothing(NothingDone::Misconfigured { reason }),
                false => Called::Barred { reason },
            }
        }
        // An earlier attempt may have reached the gateway: only a first one's "nothing happened" is the whole truth.
        Err(GatewayError::NothingHappened { reason }) if is_first => {
            tracing::warn!(key = %claim.scope, resource = %claim.resource_id, reason, "nothing reached the gateway");
            Called::Nothing(NothingDone::Unavailable)
        }
        Err(error) => {
            tracing::warn!(key = %claim.scope, resource = %claim.resource_id, attempt = claim.attempt, %error,
                "the gateway's answer is not known yet");
            Called::Unknown
        }
    }
}

/// The gateway was asked about an old call, and knows of none.
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
