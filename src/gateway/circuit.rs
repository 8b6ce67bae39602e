//! A circuit breaker, which stops calls to a gateway that is down.
//!
//! It opens after several calls in a row that did not reach the gateway: calls then fail at once with
//! [`GatewayError::NothingHappened`]. After a pause it lets one call through as a probe. Success closes the circuit, failure makes
//! the pause longer.
//!
//! The answers of a gateway that refuses this service do not open the circuit. The circuit remembers the reason.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{
    Cancel, Capture, Charge, Charged, Gateway, GatewayError, GatewayRefund, GatewayToken, Refunded,
};
use crate::cards::{Card, CardSummary};

/// Number of failures in a row that open the circuit. A few refused connections may be a restart.
const FAILURES_TO_OPEN: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A gateway behind a circuit breaker.
pub struct Circuit {
    gateway: Arc<dyn Gateway>,
    state: Mutex<State>,
    /// Why the gateway refused this service. Cleared when it accepts a call again.
    trouble: Mutex<Option<String>>,
}

#[derive(Debug)]
struct State {
    failures: u32,
    pause: Duration,
    /// The pauses still to come. Each is twice as long as the one before, up to [`LONGEST_PAUSE`].
    pauses: ExponentialBackoff,
    /// When the next call may probe. `None` while the circuit is closed.
    probe_at: Option<Instant>,
}

impl State {
    fn closed() -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times();
        Self {
            failures: 0,
            pause: FIRST_PAUSE,
            pauses: pauses.build(),
            probe_at: None,
        }
    }

    /// Returns whether a call may be made now. A probe postpones the next one, so there is one at a time.
    fn admits(&mut self, now: Instant) -> bool {
        match self.probe_at {
            Some(probe_at) if now < probe_at => false,
            Some(_) => {
                self.probe_at = Some(now + self.pause);
                true
            }
            None => true,
        }
    }

    fn note(&mut self, nothing_happened: bool, now: Instant) {
        if !nothing_happened {
            *self = Self::closed();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_TO_OPEN {
            self.pause = self.pauses.next().unwrap_or(LONGEST_PAUSE);
            self.probe_at = Some(now + self.pause);
        }
    }
}

impl Circuit {
    /// Puts a closed circuit in front of a gateway.
    pub fn new(gateway: Arc<dyn Gateway>) -> Self {
        Self {
            gateway,
            state: Mutex::new(State::closed()),
            trouble: Mutex::new(None),
        }
    }

    fn note_trouble<T>(&self, answer: &Result<T, GatewayError>) {
        let trouble = match answer {
            Ok(_)
            | Err(
                GatewayError::Declined(_)
                | GatewayError::Refused(_)
                | GatewayError::HoldLapsed { .. },
            ) => None,
            Err(GatewayError::Misconfigured { reason }) => Some(reason.clone()),
            // These do not tell whether the gateway refuses this service.
            Err(GatewayError::NothingHappened { .. } | GatewayError::Unknown { .. }) => return,
        };
        let mut noted = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_some() && trouble.is_none() {
            tracing::info!(
                gateway = self.kind(),
                "the gateway accepts this service again"
            );
        }
        *noted = trouble;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn guard<T>(
        &self,
        call: BoxFuture<'_, Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        if !self.state().admits(Instant::now()) {
            return Err(GatewayError::NothingHappened {
                reason: "its circuit is open".to_owned(),
            });
        }
        let answer = call.await;
        self.note_trouble(&answer);
        let nothing_happened = matches!(answer, Err(GatewayError::NothingHappened { .. }));
        let mut state = self.state();
        let was_open = state.probe_at.is_some();
        state.note(nothing_happened, Instant::now());
        let is_open = state.probe_at.is_some();
        drop(state);
        if was_open != is_open {
            tracing::warn!(
                gateway = self.kind(),
                is_open,
                "the gateway's circuit changed"
            );
        }
        metrics::gauge!("payonce_gateway_circuit_open", "gateway" => self.kind())
            .set(u8::from(is_open));
        answer
    }
}

impl Gateway for Circuit {
    fn kind(&self) -> &'static str {
        self.gateway.kind()
    }

    fn is_available(&self) -> bool {
        self.state().probe_at.is_none()
    }

    fn trouble(&self) -> Option<String> {
        let noted = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        noted.clone()
    }

    fn tokenizes_remotely(&self) -> bool {
        self.gateway.tokenizes_remotely()
    }

    fn has_accounts(&self) -> bool {
        self.gateway.has_accounts()
    }

    fn tokenize<'a>(
        &'a self,
        card: &'a Card,
        account: Option<&'a str>,
    ) -> BoxFuture<'a, Result<GatewayToken, GatewayError>> {
        Box::pin(self.guard(self.gateway.tokenize(card, account)))
    }

    fn describe_token(&self, token: &GatewayToken) -> Option<CardSummary> {
        self.gateway.describe_token(token)
    }

    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        Box::pin(self.guard(self.gateway.charge(charge)))
    }

    fn capture<'a>(&'a self, capture: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>> {
        Box::pin(self.guard(self.gateway.capture(capture)))
    }

    fn cancel<'a>(&'a self, cancel: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>> {
        Box::pin(self.guard(self.gateway.cancel(cancel)))
    }

    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>> {
        Box::pin(self.guard(self.gateway.refund(refund)))
    }

    // The circuit does not count questions: they are few, and recovery's own pauses grow.

    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>> {
        self.gateway.find_charge(charge)
    }

    fn find_capture<'a>(
        &'a self,
        capture: &'a Capture,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.gateway.find_capture(capture)
    }

    fn find_cancel<'a>(
        &'a self,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.gateway.find_cancel(cancel)
    }

    fn find_refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Option<Refunded>, GatewayError>> {
        self.gateway.find_refund(refund)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_probes_after_growing_pauses() {
        let start = Instant::now();
        let mut state = State::closed();
        for _ in 1..FAILURES_TO_OPEN {
            assert!(state.admits(start));
            state.note(true, start);
        }
        assert!(state.admits(start), "one failure less leaves it closed");
        state.note(true, start);
        let mut now = start;
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            let pause = Duration::from_secs(pause);
            assert!(
                !state.admits(now + pause - Duration::from_millis(1)),
                "{pause:?}"
            );
            now += pause;
            assert!(state.admits(now), "{pause:?}");
            assert!(!state.admits(now), "one probe at a time");
            state.note(true, now);
        }
        now += LONGEST_PAUSE;
        assert!(state.admits(now));
        state.note(false, now);
        assert!(
            state.probe_at.is_none() && state.admits(now),
            "a success closes it"
        );
        state.note(true, now);
        assert!(state.admits(now), "and the count begins anew");
    }
}
