//! Repeating a call until there is an answer or the time is over.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::StripeGateway;
use super::api::Call;
use super::budget::{Budget, pauses};
use super::decline::Declined;
use super::search::Question;
use super::verdict::{Again, Cause, Verdict, classify};
use crate::gateway::{GatewayError, Refusal};

/// Stripe may ask for any pause, and the client is waiting.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(1);

/// Maximum number of attempts in a row that reach no host: enough for a restart behind a load balancer. A client that is told early
/// that nothing happened tries again by itself, and does not fill this process's queues in the meantime.
const MAX_UNREACHED: u32 = 3;

/// Number of failures with one key after which the result of the call is asked for, because the key may be mute: it has only a
/// stored failure as its answer.
const FAILURES_PER_QUESTION: u32 = 2;

/// Maximum number of keys for one call. A further key is used only if those before it are mute.
const MAX_KEYS: u32 = 20;

/// Maximum number of keys that one call may use up, so that a failure of minutes does not use up all of them.
const MAX_FRESH_KEYS: u32 = 2;

/// The result of a call that was repeated until it was answered.
pub(super) enum Told<O, T> {
    /// The call's own answer.
    Answered(O),
    /// The call failed repeatedly, but a read found it carried out.
    Found(T),
    /// A decline, because of the payer's card or the object's state.
    Declined(Declined),
    /// The request's content is wrong.
    Refused(Refusal),
}

/// The result of the attempts with one key.
enum OfKey<O, T> {
    Told(Told<O, T>),
    /// The key's only answer is a stored failure of Stripe's, and a consistent read has shown that nothing was done.
    Mute {
        was_fresh: bool,
    },
}

/// The state of the attempts so far.
#[derive(Default)]
struct Trail {
    may_have_happened: bool,
    attempts: u32,
    /// In a row.
    unreached: u32,
    failures: u32,
    reason: String,
}

impl Trail {
    fn note(&mut self, again: Again) {
        self.may_have_happened |= again.cause.may_have_happened();
        self.attempts += 1;
        self.unreached = match again.cause {
            Cause::Unreached => self.unreached + 1,
            _ => 0,
        };
        if matches!(again.cause, Cause::Failed | Cause::FailedForGood) {
            self.failures += 1;
        }
        self.reason = again.reason;
    }

    /// Notes that asking for the result of the last attempt did not show it either.
    fn note_unanswered(&mut self, error: &GatewayError) {
        let failure = &self.reason;
        self.reason = format!("{failure}, and what it did could not be read: {error}");
    }

    /// The result of a call that has had no answer.
    fn end(self) -> GatewayError {
        let reason = self.reason.clone();
        self.unless_happened(GatewayError::NothingHappened { reason })
    }

    fn end_with(mut self, reason: String) -> GatewayError {
        self.reason = reason;
        self.end()
    }

    /// An error that says that nothing was done is about the last attempt only. An earlier attempt may have been carried out.
    fn unless_happened(&self, error: GatewayError) -> GatewayError {
        match self.may_have_happened {
            true => unknown(error),
            false => error,
        }
    }
}

impl StripeGateway {
    /// Repeats a call until it is answered, at first under its own key. If a key may be mute, `ask` finds out by a consistent read
    /// what the call has done so far. If nothing was done under a mute key, the key of the next attempt (`{key}:2`) is used. Every
    /// process uses the keys in this order, so the call is carried out once.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Misconfigured`] and [`GatewayError::NothingHappened`] if no attempt can have been carried out,
    /// [`GatewayError::Unknown`] if one can, and the decline that `ask` found.
    pub(super) async fn make<O, T, F>(
        &self,
        budget: Budget,
        call: &Call<'_>,
        first_key: &str,
        ask: impl Fn(Question) -> F,
    ) -> Result<Told<O, T>, GatewayError>
    where
        O: DeserializeOwned,
        F: Future<Output = Result<Option<T>, GatewayError>>,
    {
        let mut fresh = 0;
        for attempt in 1..=MAX_KEYS {
            let key = match attempt {
                1 => first_key.to_owned(),
                attempt => format!("{first_key}:{attempt}"),
            };
            match self.make_once(budget, &call.under(&key), &ask).await? {
                OfKey::Told(told) => return Ok(told),
                OfKey::Mute { was_fresh } => {
                    tracing::warn!(
                        call = call.name(),
                        key,
                        "Stripe has stored its own failure under this idempotency key, and did nothing"
                    );
                    fresh += u32::from(was_fresh);
                }
            }
            if fresh == MAX_FRESH_KEYS {
                break;
            }
        }
        Err(GatewayError::NothingHappened {
            reason: "Stripe fails, and has done nothing".to_owned(),
        })
    }

    /// Makes a call under one key.
    async fn make_once<O, T, F>(
        &self,
        budget: Budget,
        call: &Call<'_>,
        ask: impl Fn(Question) -> F,
    ) -> Result<OfKey<O, T>, GatewayError>
    where
        O: DeserializeOwned,
        F: Future<Output = Result<Option<T>, GatewayError>>,
    {
        if !call.has_sendable_account() {
            return Err(GatewayError::Misconfigured {
                reason: "the merchant's account is not a Stripe account".to_owned(),
            });
        }
        let mut trail = Trail::default();
        for pause in pauses() {
            let Some(time) = budget.attempt() else {
                return Err(trail.end_with("no time is left".to_owned()));
            };
            let again = match classify(self.api.send(call, time).await) {
                Verdict::Again(again) => again,
                verdict => return concluded(call, &trail, verdict, ask).await,
            };
            let (cause, is_last) = (again.cause, again.is_last);
            let asked_pause = again.pause.unwrap_or_default();
            tracing::debug!(
                call = call.name(),
                reason = again.reason,
                ?cause,
                "Stripe will be called again"
            );
            trail.note(again);
            if is_time_to_ask(cause, trail.failures) {
                match ask(question(call, cause)).await {
                    Ok(Some(found)) => return Ok(OfKey::Told(Told::Found(found))),
                    Ok(None) if cause == Cause::FailedForGood => {
                        let was_fresh = trail.attempts > 1;
                        return Ok(OfKey::Mute { was_fresh });
                    }
                    Err(GatewayError::Declined(decline)) => {
                        return Err(GatewayError::Declined(decline));
                    }
                    // If the question has no answer, the state of the call is as before.
                    Ok(None) => {}
                    Err(error) => trail.note_unanswered(&error),
                }
            }
            let pause = pause.max(asked_pause.min(LONGEST_ASKED_PAUSE));
            if is_last || !self.goes_on(budget, &trail, pause) {
                break;
            }
            tokio::time::sleep(pause).await;
            failpoint!("stripe-again");
        }
        Err(trail.end())
    }

    /// Reads an object. A failed read says nothing about the call whose result it asks for, so every failure is
    /// [`GatewayError::Unknown`].
    pub(super) async fn read<O: DeserializeOwned>(
        &self,
        budget: Budget,
        call: &Call<'_>,
    ) -> Result<O, GatewayError> {
        let told = self
            .make_once(budget, call, |_| ready(Ok(None::<Infallible>)))
            .await;
        let reason = match told {
            Ok(OfKey::Told(Told::Answered(object))) => return Ok(object),
            Ok(OfKey::Told(Told::Found(never))) => match never {},
            Ok(OfKey::Told(Told::Declined(declined))) => declined.decline.code,
            Ok(OfKey::Told(Told::Refused(refusal))) => refusal.code,
            Ok(OfKey::Mute { .. }) => "a stored failure".to_owned(),
            Err(error) => return Err(unknown(error)),
        };
        Err(GatewayError::Unknown {
            reason: format!("{} was answered by {reason}", call.name()),
        })
    }

    /// Returns whether to make a further attempt.
    fn goes_on(&self, budget: Budget, trail: &Trail, pause: Duration) -> bool {
        if trail.may_have_happened {
            return budget.allows(pause, Duration::ZERO);
        }
        // While it is certain that nothing happened, a short attempt would only make the outcome uncertain.
        trail.unreached < MAX_UNREACHED && budget.allows(pause, self.api.connect_time())
    }
}

/// The result of a verdict that no further attempt would change.
async fn concluded<O, T, F>(
    call: &Call<'_>,
    trail: &Trail,
    verdict: Verdict<O>,
    ask: impl Fn(Question) -> F,
) -> Result<OfKey<O, T>, GatewayError>
where
    F: Future<Output = Result<Option<T>, GatewayError>>,
{
    let told = match verdict {
        Verdict::Answered(object) => Told::Answered(object),
        Verdict::Declined(declined) => {
            let code = &declined.decline.code;
            tracing::info!(call = call.name(), code, "Stripe declined");
            Told::Declined(declined)
        }
        Verdict::Refused { refusal, stored } => {
            let (code, param) = (&refusal.code, &refusal.param);
            tracing::info!(
                call = call.name(),
                code,
                param,
                "Stripe refused the request"
            );
            if trail.may_have_happened && !stored {
                let reason = format!("refused after an attempt without an answer: {code}");
                return Err(GatewayError::Unknown { reason });
            }
            Told::Refused(refusal)
        }
        Verdict::Misconfigured(reason) => {
            tracing::error!(
                call = call.name(),
                reason,
                "Stripe refuses this service: its API key, account, API version or capabilities"
            );
            return Err(trail.unless_happened(GatewayError::Misconfigured { reason }));
        }
        Verdict::KeyReused(reason) => {
            tracing::error!(
                call = call.name(),
                reason,
                "Stripe has a different request under this idempotency key"
            );
            match ask(Question::Call(call.key().to_owned())).await {
                Ok(Some(found)) => Told::Found(found),
                Err(GatewayError::Declined(decline)) => {
                    return Err(GatewayError::Declined(decline));
                }
                Ok(None) | Err(_) => return Err(GatewayError::Unknown { reason }),
            }
        }
        Verdict::Again(again) => {
            return Err(GatewayError::Unknown {
                reason: again.reason,
            });
        }
    };
    Ok(OfKey::Told(told))
}

fn is_time_to_ask(cause: Cause, failures: u32) -> bool {
    match cause {
        Cause::FailedForGood => true,
        Cause::Failed => failures.is_multiple_of(FAILURES_PER_QUESTION),
        Cause::Unreached | Cause::Throttled | Cause::InUse | Cause::Lost => false,
    }
}

/// The question for the result of a call that failed.
fn question(call: &Call<'_>, cause: Cause) -> Question {
    let key = call.key().to_owned();
    match cause {
        Cause::FailedForGood => Question::EndedCall(key),
        _ => Question::Call(key),
    }
}

/// For a later step of a call, if an earlier step has happened or may have.
pub(super) fn unknown(error: GatewayError) -> GatewayError {
    match error {
        GatewayError::NothingHappened { reason }
        | GatewayError::Misconfigured { reason }
        | GatewayError::Unknown { reason } => GatewayError::Unknown { reason },
        GatewayError::Refused(refusal) => GatewayError::Unknown {
            reason: refusal.code,
        },
        error @ (GatewayError::Declined(_) | GatewayError::HoldLapsed { .. }) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(causes: &[Cause]) -> Trail {
        let mut trail = Trail::default();
        for &cause in causes {
            trail.note(Again {
                cause,
                pause: None,
                is_last: false,
                reason: String::new(),
            });
        }
        trail
    }

    fn word(error: &GatewayError) -> &'static str {
        match error {
            GatewayError::NothingHappened { .. } => "nothing happened",
            GatewayError::Misconfigured { .. } => "misconfigured",
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
            assert_eq!(word(&trail(causes).end()), expected, "{causes:?}");
            let reason = String::new();
            let misconfigured = GatewayError::Misconfigured { reason };
            let expected = match expected {
                "unknown" => "unknown",
                _ => "misconfigured",
            };
            let ended = trail(causes).unless_happened(misconfigured);
            assert_eq!(word(&ended), expected, "{causes:?}");
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
