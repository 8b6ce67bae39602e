//! A gateway that answers by a script, and records its calls.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use payonce::cards::{Card, CardSummary};
use payonce::gateway::{
    Cancel, Capture, Charge, Charged, Decline, Gateway, GatewayError, GatewayRefund, GatewayToken,
    Refunded, Refusal, SimulatedGateway,
};
use tokio::sync::Semaphore;

/// The gateway's reaction to a call.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// Answers like the simulated gateway.
    Answer,
    /// Waits until the test calls [`ScriptedGateway::release`], and then answers like the simulated gateway.
    Hold,
    Decline,
    /// The request's content is wrong.
    Refuse,
    /// The service is refused, not the payer.
    Misconfigured,
    /// Nothing reached it.
    Nothing,
    /// It may have been done.
    Unknown,
    /// No answer at all.
    Silence,
    /// The answer to a question: there was no such call.
    Never,
}

/// Answers that a test gives beforehand. Each is used once, in order.
struct Answers<T>(Mutex<VecDeque<Result<T, GatewayError>>>);

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send> Answers<T> {
    fn push(&self, answer: Result<T, GatewayError>) {
        self.0.lock().expect("the answers").push_back(answer);
    }

    fn next(&self) -> Option<Result<T, GatewayError>> {
        self.0.lock().expect("the answers").pop_front()
    }

    /// The next of them. Without one, the simulated gateway's.
    fn or<'a>(
        &'a self,
        simulated: BoxFuture<'a, Result<T, GatewayError>>,
    ) -> BoxFuture<'a, Result<T, GatewayError>> {
        async move {
            match self.next() {
                Some(answer) => answer,
                None => simulated.await,
            }
        }
        .boxed()
    }
}

/// Takes its turns in order. After the last it answers as it was told, or as the simulated gateway does.
pub struct ScriptedGateway {
    inner: SimulatedGateway,
    charge_answers: Answers<Charged>,
    /// Of captures and cancels.
    adjustment_answers: Answers<()>,
    /// Of refunds, and of questions about them.
    refund_answers: Answers<Refunded>,
    /// Whether tokens are described, so that a payment has its card before the charge.
    describes_tokens: bool,
    turns: Mutex<VecDeque<Turn>>,
    /// Why the next card gets no token.
    no_token: Mutex<Option<Decline>>,
    asked: Mutex<Vec<String>>,
    /// One permit for each held call that may go on.
    released: Semaphore,
}

impl ScriptedGateway {
    pub fn new(turns: &[Turn]) -> Arc<Self> {
        Self::with_latency(Duration::ZERO, turns)
    }

    pub fn with_latency(latency: Duration, turns: &[Turn]) -> Arc<Self> {
        Arc::new(Self::simulating(latency, turns, true))
    }

    /// A gateway that knows a token's card only from the charge.
    pub fn describing_no_tokens() -> Arc<Self> {
        Arc::new(Self::simulating(Duration::ZERO, &[], false))
    }

    fn simulating(latency: Duration, turns: &[Turn], describes_tokens: bool) -> Self {
        Self {
            inner: SimulatedGateway::new(latency),
            charge_answers: Answers::default(),
            adjustment_answers: Answers::default(),
            refund_answers: Answers::default(),
            describes_tokens,
            turns: Mutex::new(turns.iter().copied().collect()),
            no_token: Mutex::default(),
            asked: Mutex::default(),
            released: Semaphore::new(0),
        }
    }

    /// Sets the answer of the next charge.
    pub fn answer_charge(&self, answer: Result<Charged, GatewayError>) {
        self.charge_answers.push(answer);
    }

    /// Sets the answer of the next capture or cancel.
    pub fn answer_adjustment(&self, answer: Result<(), GatewayError>) {
        self.adjustment_answers.push(answer);
    }

    /// Sets the next answer about a refund.
    pub fn answer_refund(&self, answer: Result<Refunded, GatewayError>) {
        self.refund_answers.push(answer);
    }

    pub fn then(&self, turns: &[Turn]) {
        self.turns.lock().expect("the turns").extend(turns);
    }

    /// The next card is declined before it has a token.
    pub fn decline_the_next_card(&self) {
        *self.no_token.lock().expect("the decline") = Some(Decline::new("scripted", "Scripted"));
    }

    /// Lets one held call continue, which may be held already or later.
    pub fn release(&self) {
        self.released.add_permits(1);
    }

    /// The calls so far, in order, by their names.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("the calls").clone()
    }

    /// How often it was called to charge.
    pub fn charges(&self) -> usize {
        self.count(&["charge"])
    }

    /// How often it was called to capture, cancel or refund.
    pub fn adjustments(&self) -> usize {
        self.count(&["capture", "cancel", "refund"])
    }

    fn count(&self, names: &[&str]) -> usize {
        let asked = self.asked();
        let is_one = |call: &&String| {
            call.split(' ')
                .next()
                .is_some_and(|name| names.contains(&name))
        };
        asked.iter().filter(is_one).count()
    }

    /// Counted when it is polled: the service makes a future for the call and one for the question, and polls one of them.
    fn turn<'a, T: Send + 'a>(
        &'a self,
        call: String,
        answer: BoxFuture<'a, Result<T, GatewayError>>,
        never: Option<T>,
    ) -> BoxFuture<'a, Result<T, GatewayError>> {
        async move {
            self.asked.lock().expect("the calls").push(call);
            let turn = self.turns.lock().expect("the turns").pop_front();
            let reason = "the test's script".to_owned();
            match turn.unwrap_or(Turn::Answer) {
                Turn::Answer => answer.await,
                Turn::Hold => {
                    let permit = self.released.acquire().await;
                    permit.expect("it is never closed").forget();
                    answer.await
                }
                Turn::Silence => std::future::pending().await,
                Turn::Decline => Err(GatewayError::Declined(Decline::new("scripted", "Scripted"))),
                Turn::Refuse => Err(GatewayError::Refused(Refusal {
                    code: "scripted".to_owned(),
                    message: "Scripted".to_owned(),
                    param: Some("amount".to_owned()),
                })),
                Turn::Misconfigured => Err(GatewayError::Misconfigured { reason }),
                Turn::Nothing => Err(GatewayError::NothingHappened { reason }),
                Turn::Unknown => Err(GatewayError::Unknown { reason }),
                Turn::Never => Ok(never.expect("only a question is answered by never")),
            }
        }
        .boxed()
    }
}

impl Gateway for ScriptedGateway {
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
        let declined = self.no_token.lock().expect("the decline").take();
        match declined {
            Some(decline) => ready(Err(GatewayError::Declined(decline))).boxed(),
            None => self.inner.tokenize(card, account),
        }
    }
    fn describe_token(&self, token: &GatewayToken) -> Option<CardSummary> {
        self.inner
            .describe_token(token)
            .filter(|_| self.describes_tokens)
    }
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        let call = format!("charge {}", charge.payment_id);
        self.turn(
            call,
            self.charge_answers.or(self.inner.charge(charge)),
            None,
        )
    }
    fn capture<'a>(&'a self, capture: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>> {
        let call = format!("capture {}", capture.payment_id);
        self.turn(
            call,
            self.adjustment_answers.or(self.inner.capture(capture)),
            None,
        )
    }
    fn cancel<'a>(&'a self, cancel: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>> {
        let call = format!("cancel {}", cancel.payment_id);
        self.turn(
            call,
            self.adjustment_answers.or(self.inner.cancel(cancel)),
            None,
        )
    }
    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>> {
        let call = format!("refund {}", refund.refund_id);
        self.turn(
            call,
            self.refund_answers.or(self.inner.refund(refund)),
            None,
        )
    }
    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>> {
        let call = format!("find_charge {}", charge.payment_id);
        self.turn(call, self.inner.find_charge(charge), Some(None))
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
        // When it is polled: the service also makes this future when it calls.
        async move {
            match self.refund_answers.next() {
                Some(answer) => answer.map(Some),
                None => self.inner.find_refund(refund).await,
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use payonce::gateway::{CaptureMethod, Circuit};
    use payonce::money::{Amount, Currency};

    use super::*;

    #[tokio::test]
    async fn a_refusal_of_the_request_clears_what_the_circuit_remembers_and_silence_does_not() {
        let turns = [
            Turn::Misconfigured,
            Turn::Nothing,
            Turn::Unknown,
            Turn::Refuse,
        ];
        let gateway = Circuit::new(ScriptedGateway::new(&turns));
        let usd = Currency::from_code("USD").expect("USD");
        let charge = Charge {
            payment_id: "pay_1".to_owned(),
            merchant_id: "acme".to_owned(),
            account: None,
            amount: Amount::from_minor(100, usd),
            token: GatewayToken::new("pm_card_visa"),
            capture_method: CaptureMethod::Automatic,
            gateway_customer_id: None,
            off_session: false,
            description: None,
            claimed_at: chrono::Utc::now(),
        };
        let expected = [true, true, true, false, false];
        for is_in_trouble in expected {
            // The last turn is an answer.
            let _ = gateway.charge(&charge).await;
            assert_eq!(gateway.trouble().is_some(), is_in_trouble);
        }
    }
}
