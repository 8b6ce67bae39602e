//! A gateway inside the process, for development, tests and demonstrations.
//!
//! Its answers depend only on the card, whose outcome its tokens carry, and its transaction ids depend only on the payment's id. So
//! it makes one charge for one payment, however often and from which process it is called, and a question about a charge is
//! answered as if it had been made. It keeps small books for the life of the process, and refuses what contradicts them: see
//! [`books`].

mod books;
mod outcome;
mod scripted;
mod test_token;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use self::books::{Books, transaction_id};
use self::outcome::Outcome;
use self::scripted::{A_WHILE, Behaviour, Counts, is_recent};
use self::test_token::{TestToken, outcome_of};
use super::{
    Cancel, Capture, CaptureMethod, Charge, Charged, Decline, Gateway, GatewayError, GatewayRefund,
    GatewayToken, RefundProgress, Refunded,
};
use crate::cards::{Card, CardSummary};

/// The time zone in which a day ends last.
const LAST_TIME_ZONE: TimeDelta = TimeDelta::hours(12);

/// The simulated gateway, as the module describes it. Clones share their books.
#[derive(Clone)]
pub struct SimulatedGateway {
    latency: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    books: Books,
    counts: Counts,
}

impl SimulatedGateway {
    /// A gateway that takes `latency` for everything except tokens.
    pub fn new(latency: Duration) -> Self {
        Self {
            latency,
            state: Arc::default(),
        }
    }

    /// Answers after the latency, from the books as they are then.
    fn after<'a, T: Send + 'a>(
        &'a self,
        latency: Duration,
        answer: impl FnOnce(&mut State) -> Result<T, GatewayError> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, GatewayError>> {
        async move {
            // Without a latency there is no sleep: the timer's finest step is a millisecond.
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            answer(&mut self.state())
        }
        .boxed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimulatedGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedGateway")
            .field("latency", &self.latency)
            .finish_non_exhaustive()
    }
}

impl Gateway for SimulatedGateway {
    fn kind(&self) -> &'static str {
        "SIMULATED"
    }

    fn tokenizes_remotely(&self) -> bool {
        false
    }

    fn tokenize<'a>(
        &'a self,
        card: &'a Card,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<GatewayToken, GatewayError>> {
        let outcome = Outcome::of_card(card, last_date(Utc::now()));
        std::future::ready(Ok(outcome.token())).boxed()
    }

    fn describe_token(&self, token: &GatewayToken) -> Option<CardSummary> {
        TestToken::find(token).map(TestToken::summary)
    }

    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        let behaviour = Behaviour::of_token(charge.token.as_str());
        let latency = match behaviour {
            Some(Behaviour::Slow) => self.latency.max(A_WHILE),
            _ => self.latency,
        };
        self.after(latency, move |state| {
            let obstacle = behaviour.and_then(|b| b.obstacle(charge, &mut state.counts));
            match obstacle {
                Some(obstacle) => Err(obstacle),
                None => state.answer_to(charge),
            }
        })
    }

    fn capture<'a>(&'a self, capture: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.after(self.latency, |state| state.books.capture(capture))
    }

    fn cancel<'a>(&'a self, cancel: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.after(self.latency, |state| {
            let Cancel {
                transaction_id,
                payment_id,
                ..
            } = cancel;
            state.books.cancel(transaction_id, payment_id)
        })
    }

    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>> {
        self.after(self.latency, |state| {
            let fails = state.books.refund(refund)?;
            refunded(refund, fails)
        })
    }

    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>> {
        let behaviour = Behaviour::of_token(charge.token.as_str());
        self.after(self.latency, move |state| match behaviour {
            Some(behaviour) if behaviour.never_charges() => Ok(None),
            Some(behaviour) if let Some(unknown) = behaviour.unknown_outcome(charge) => {
                Err(unknown)
            }
            _ => state.answer_to(charge).map(Some),
        })
    }

    fn find_capture<'a>(
        &'a self,
        capture: &'a Capture,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.after(self.latency, |state| state.books.find_capture(capture))
    }

    fn find_cancel<'a>(
        &'a self,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.after(self.latency, |state| {
            let Cancel {
                transaction_id,
                payment_id,
                ..
            } = cancel;
            state.books.find_cancel(transaction_id, payment_id)
        })
    }

    fn find_refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Option<Refunded>, GatewayError>> {
        self.after(self.latency, |state| {
            let fails = state.books.refunds_fail(&refund.transaction_id);
            refunded(refund, fails).map(Some)
        })
    }
}

/// The date in the time zone where it changes last: a card is valid until its month is over everywhere on earth.
fn last_date(now: DateTime<Utc>) -> NaiveDate {
    (now - LAST_TIME_ZONE).date_naive()
}

impl State {
    fn answer_to(&mut self, charge: &Charge) -> Result<Charged, GatewayError> {
        let outcome = outcome_of(&charge.token);
        if let Some(error) = outcome.error() {
            return Err(error);
        }
        let id = transaction_id(&charge.payment_id);
        self.books.charge(
            &id,
            charge.amount.minor(),
            charge.capture_method == CaptureMethod::Automatic,
            outcome == Outcome::RefundsFail,
        );
        Ok(Charged {
            transaction_id: id,
            card: TestToken::find(&charge.token).map(TestToken::summary),
        })
    }
}

fn strip<'a>(id: &'a str, prefix: &str) -> &'a str {
    id.strip_prefix(prefix).unwrap_or(id)
}

/// The result of a refund. One that fails is pending for a while first.
fn refunded(refund: &GatewayRefund, fails: bool) -> Result<Refunded, GatewayError> {
    let progress = match fails {
        false => RefundProgress::Succeeded,
        true if is_recent(&refund.refund_id, Utc::now()) => RefundProgress::Pending,
        true => {
            return Err(GatewayError::Declined(Decline::new(
                "refund_failed",
                "The refund failed at the gateway",
            )));
        }
    };
    Ok(Refunded {
        gateway_refund_id: format!("sim_re_{}", strip(&refund.refund_id, "ref_")),
        progress,
    })
}

#[cfg(test)]
mod tests;
