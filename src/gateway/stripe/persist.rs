//! Asking until there is an answer, or the time is over.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::StripeGateway;
use super::api::Call;
use super::budget::{Budget, pauses};
use super::verdict::{Again, Cause, Verdict, classify};
use crate::gateway::{Decline, GatewayError};

/// Stripe may ask for any pause, and the client is waiting.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(1);

/// So many attempts in a row may find nobody there: enough for a restart behind a load balancer. A client that is told at
/// once that nothing happened comes back by itself, and does not fill this process's queues meanwhile.
const MAX_UNREACHED: u32 = 3;

/// After every so many failures with one key, it is asked what became of the call instead: the key may be mute.
const FAILURES_PER_QUESTION: u32 = 2;

/// What came of a call that was made until it was answered.
pub(super) enum Told<O, T> {
    /// The call's own answer.
    Answered(O),
    /// The call failed and failed, but what it was to do is found done.
    Found(T),
    /// A definite no.
    Refused(Decline),
}

/// What the attempts so far came to.
#[derive(Default)]
struct Trail {
    may_have_happened: bool,
    /// In a row.
    unreached: u32,
    failures: u32,
    reason: String,
}

impl Trail {
    fn note(&mut self, again: Again) {
        self.may_have_happened |= again.cause.may_have_happened();
        self.unreached = match again.cause {
            Cause::Unreached => self.unreached + 1,
            _ => 0,
        };
        if matches!(again.cause, Cause::Failed | Cause::FailedForGood) {
            self.failures += 1;
        }
        self.reason = again.reason;
    }

    /// The first word on a call that stays without an answer.
    fn end(self) -> GatewayError {
        let reason = self.reason;
        if self.may_have_happened {
            GatewayError::Unknown { reason }
        } else {
            GatewayError::NothingHappened { reason }
        }
    }

    fn end_with(mut self, reason: String) -> GatewayError {
        self.reason = reason;
        self.end()
    }
}

impl StripeGateway {
    /// Makes a call with one idempotency key until it is answered. Where the key may be mute, `ask` finds out what the call
    /// has done so far; its `None` is not final.
    ///
    /// # Errors
    ///
    /// [`GatewayError::NothingHappened`] where no attempt can have been carried out, [`GatewayError::Unknown`] where one
    /// can, and what `ask` found declined.
    pub(super) async fn make<O, T, F>(
        &self,
        budget: Budget,
        call: &Call<'_>,
        ask: impl Fn() -> F,
    ) -> Result<Told<O, T>, GatewayError>
    where
        O: DeserializeOwned,
        F: Future<Output = Result<Option<T>, GatewayError>>,
    {
        let mut trail = Trail::default();
        for pause in pauses() {
            let Some(time) = budget.attempt() else {
                return Err(trail.end_with("no time is left".to_owned()));
            };
            let again = match classify(self.api.send(call, time).await) {
                Verdict::Answered(object) => return Ok(Told::Answered(object)),
                Verdict::Refused(decline) => {
                    tracing::info!(call = call.name(), code = decline.code, "Stripe refused");
                    return Ok(Told::Refused(decline));
                }
                Verdict::Barred(reason) => {
                    tracing::error!(
                        call = call.name(),
                        reason,
                        "Stripe takes nothing from this service: its API key or base URL is wrong"
                    );
                    return Err(trail.end_with(reason));
                }
                Verdict::KeyReused(reason) => {
                    tracing::error!(
                        call = call.name(),
                        reason,
                        "Stripe has another request by this idempotency key"
                    );
                    let found = settled(ask().await)?;
                    return found
                        .map(Told::Found)
                        .ok_or(GatewayError::Unknown { reason });
                }
                Verdict::Again(again) => again,
            };
            let (cause, asked_pause) = (again.cause, again.pause.unwrap_or_default());
            tracing::debug!(
                call = call.name(),
                reason = again.reason,
                ?cause,
                "Stripe is to be asked again"
            );
            trail.note(again);
            if is_time_to_ask(cause, trail.failures)
                && let Some(found) = settled(ask().await)?
            {
                return Ok(Told::Found(found));
            }
            let pause = pause.max(asked_pause.min(LONGEST_ASKED_PAUSE));
            if !self.goes_on(budget, &trail, pause) {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        Err(trail.end())
    }

    /// Reads an object. It changes nothing, so [`GatewayError::NothingHappened`] would say nothing of what is asked about:
    /// every failure is [`GatewayError::Unknown`].
    pub(super) async fn read<O: DeserializeOwned>(
        &self,
        budget: Budget,
        call: &Call<'_>,
    ) -> Result<O, GatewayError> {
        let told = self
            .make(budget, call, || ready(Ok(None::<Infallible>)))
            .await;
        match told {
            Ok(Told::Answered(object)) => Ok(object),
            Ok(Told::Refused(decline)) => Err(GatewayError::Unknown {
                reason: format!("{} was refused: {}", call.name(), decline.code),
            }),
            Ok(Told::Found(never)) => match never {},
            Err(error) => Err(unknown(error)),
        }
    }

    /// Whether there is to be a further attempt.
    fn goes_on(&self, budget: Budget, trail: &Trail, pause: Duration) -> bool {
        if trail.may_have_happened {
            return budget.allows(pause, Duration::ZERO);
        }
        // As long as nothing happened, an attempt whose end would not be known to be "nothing happened" is worse than none.
        trail.unreached < MAX_UNREACHED && budget.allows(pause, self.api.connect_time())
    }
}

fn is_time_to_ask(cause: Cause, failures: u32) -> bool {
    match cause {
        Cause::FailedForGood => true,
        Cause::Failed => failures.is_multiple_of(FAILURES_PER_QUESTION),
        Cause::Unreached | Cause::Throttled | Cause::InUse | Cause::Lost => false,
    }
}

/// What is found settled. A question without an answer leaves the call as it was.
fn settled<T>(answer: Result<Option<T>, GatewayError>) -> Result<Option<T>, GatewayError> {
    match answer {
        Ok(found) => Ok(found),
        Err(GatewayError::Declined(decline)) => Err(GatewayError::Declined(decline)),
        Err(_) => Ok(None),
    }
}

/// For a step of a call of which an earlier step has happened.
pub(super) fn unknown(error: GatewayError) -> GatewayError {
    match error {
        GatewayError::NothingHappened { reason } | GatewayError::Unknown { reason } => {
            GatewayError::Unknown { reason }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(causes: &[Cause]) -> &'static str {
        let mut trail = Trail::default();
        for &cause in causes {
            trail.note(Again {
                cause,
                pause: None,
                reason: String::new(),
            });
        }
        match trail.end() {
            GatewayError::NothingHappened { .. } => "nothing happened",
            GatewayError::Unknown { .. } => "unknown",
            error => panic!("{error}"),
        }
    }

    #[test]
    fn nothing_happened_only_where_no_attempt_can_have_been_carried_out() {
        use Cause::{Failed, FailedForGood, InUse, Lost, Throttled, Unreached};
        let rows: [(&[Cause], &str); 9] = [
            (&[Unreached], "nothing happened"),
            (&[Throttled], "nothing happened"),
            (&[Unreached, Throttled, Unreached], "nothing happened"),
            (&[Lost], "unknown"),
            (&[Failed], "unknown"),
            (&[FailedForGood], "unknown"),
            (&[InUse], "unknown"),
            (&[Lost, Throttled, Unreached, Unreached], "unknown"),
            (&[Unreached, Throttled, Failed], "unknown"),
        ];
        for (causes, expected) in rows {
            assert_eq!(end(causes), expected, "{causes:?}");
        }
    }

    #[test]
    fn it_is_asked_when_the_key_may_be_mute() {
        assert!(is_time_to_ask(Cause::FailedForGood, 1));
        assert!(!is_time_to_ask(Cause::Failed, 1));
        assert!(is_time_to_ask(Cause::Failed, 2));
        assert!(!is_time_to_ask(Cause::Failed, 3));
        assert!(!is_time_to_ask(Cause::Lost, 2));
    }
}
