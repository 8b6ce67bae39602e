//! A gateway that answers each call as the history prescribes, and holds back the answers that the history holds.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use payonce::cards::{Card, CardSummary};
use payonce::gateway::{
    Cancel, Capture, Charge, Charged, Decline, Gateway, GatewayError, GatewayRefund, GatewayToken,
    Refunded, Refusal, SimulatedGateway,
};
use tokio::sync::{oneshot, watch};

/// The gateway's answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is done.
    Answer,
    Decline,
    /// The request's content is wrong.
    Refuse,
    /// The service is refused, not the payer.
    Misconfigured,
    /// Nothing reached it.
    Nothing,
    /// It may have been done.
    Unknown,
}

impl Turn {
    /// Returns true for an answer that a real gateway gives to every later call with the same key, too.
    pub fn is_certain(self) -> bool {
        matches!(self, Self::Answer | Self::Decline | Self::Refuse)
    }
}

/// A held call. Its answer is sent here.
pub type Gate = oneshot::Sender<Turn>;

pub struct GatedGateway {
    inner: SimulatedGateway,
    /// The answer to every call until it is set again. `None` if calls are held.
    turn: Mutex<Option<Turn>>,
    gate: Mutex<Option<Gate>>,
    calls: watch::Sender<usize>,
}

impl GatedGateway {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: SimulatedGateway::new(Duration::ZERO),
            turn: Mutex::new(Some(Turn::Unknown)),
            gate: Mutex::default(),
            calls: watch::Sender::new(0),
        })
    }

    /// Sets the answer to every later call. With `None`, the test opens a gate for each.
    pub fn set(&self, turn: Option<Turn>) {
        *self.turn.lock().expect("the turn") = turn;
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        *self.calls.borrow()
    }

    /// Waits until there were more calls than `before`, and takes the gate of the last.
    pub async fn held_after(&self, before: usize) -> Gate {
        let mut calls = self.calls.subscribe();
        let called = calls.wait_for(|calls| *calls > before).await;
        drop(called.expect("the gateway is there"));
        let gate = self.gate.lock().expect("the gate").take();
        gate.expect("the call is held")
    }

    /// Counted when it is polled: the service makes a future for the call and one for the question, and polls one of them.
    fn answer<'a, T: Send + 'a>(
        &'a self,
        done: BoxFuture<'a, Result<T, GatewayError>>,
    ) -> BoxFuture<'a, Result<T, GatewayError>> {
        async move {
            let turn = *self.turn.lock().expect("the turn");
            let opened = match turn {
                Some(_) => None,
                None => {
                    let (gate, opened) = oneshot::channel();
                    *self.gate.lock().expect("the gate") = Some(gate);
                    Some(opened)
                }
            };
            self.calls.send_modify(|calls| *calls += 1);
            let turn = match (turn, opened) {
                (Some(turn), _) => turn,
                (None, Some(opened)) => opened.await.unwrap_or(Turn::Unknown),
                (None, None) => Turn::Unknown,
            };
            let reason = "the history".to_owned();
            Err(match turn {
                Turn::Answer => return done.await,
                Turn::Decline => GatewayError::Declined(Decline::new("scripted", "Scripted")),
                Turn::Refuse => GatewayError::Refused(Refusal {
                    code: "scripted".to_owned(),
                    message: "Scripted".to_owned(),
                    param: None,
                }),
                Turn::Misconfigured => GatewayError::Misconfigured { reason },
                Turn::Nothing => GatewayError::NothingHappened { reason },
                Turn::Unknown => GatewayError::Unknown { reason },
            })
        }
        .boxed()
    }
}

impl Gateway for GatedGateway {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }
    fn tokenizes_remotely(&self) -> bool {
        false
    }
    fn tokenize<'a>(
        &'a self,
        card: &'a Card,
        account: Option<&'a str>,
    ) -> BoxFuture<'a, Result<GatewayToken, GatewayError>> {
        self.inner.tokenize(card, account)
    }
    fn describe_token(&self, token: &GatewayToken) -> Option<CardSummary> {
        self.inner.describe_token(token)
    }
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        self.answer(self.inner.charge(charge))
    }
    fn capture<'a>(&'a self, capture: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.answer(self.inner.capture(capture))
    }
    fn cancel<'a>(&'a self, cancel: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>> {
        self.answer(self.inner.cancel(cancel))
    }
    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>> {
        self.answer(self.inner.refund(refund))
    }
    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>> {
        self.inner.find_charge(charge)
    }
    fn find_capture<'a>(
        &'a self,
        capture: &'a Capture,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.inner.find_capture(capture)
    }
    fn find_cancel<'a>(
        &'a self,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        self.inner.find_cancel(cancel)
    }
    fn find_refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Option<Refunded>, GatewayError>> {
        self.inner.find_refund(refund)
    }
}
