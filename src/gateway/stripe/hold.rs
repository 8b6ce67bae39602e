//! Capturing and canceling a charge that holds money.

use super::StripeGateway;
use super::amount::{amount_of_wire, wire_amount, wire_currency};
use super::api::Call;
use super::budget::Budget;
use super::decline::of_code;
use super::intent::{Intent, Status, differing};
use super::persist::Told;
use crate::gateway::{Cancel, Capture, Decline, GatewayError};

impl StripeGateway {
    pub(super) async fn capture_within(
        &self,
        budget: Budget,
        capture: &Capture,
    ) -> Result<(), GatewayError> {
        let asked = wire_amount(capture.amount)?;
        let amount = asked.to_string();
        let path = [
            "payment_intents",
            capture.transaction_id.as_str(),
            "capture",
        ];
        let params = [("amount_to_capture", amount.as_str())];
        let call = Call::post(&path, &capture.key, &params).on(capture.account.as_deref());
        let ask = || self.find_capture_within(budget, capture);
        match self.make(budget, &call, &capture.key, |_| ask()).await? {
            Told::Answered(intent) => self.is_captured_as_asked(&intent, capture, asked),
            Told::Found(()) => Ok(()),
            Told::Declined(no) => unless_done(GatewayError::Declined(no.decline), ask().await),
            Told::Refused(refusal) => unless_done(GatewayError::Refused(refusal), ask().await),
        }
    }

    pub(super) async fn find_capture_within(
        &self,
        budget: Budget,
        capture: &Capture,
    ) -> Result<Option<()>, GatewayError> {
        let account = capture.account.as_deref();
        let intent = self
            .retrieve(budget, account, &capture.transaction_id)
            .await?;
        intent.is_in_mode(self.livemode)?;
        is_captured(&intent, capture)
    }

    /// The answer to this very capture: another amount is not what was asked for.
    fn is_captured_as_asked(
        &self,
        intent: &Intent,
        capture: &Capture,
        asked: i64,
    ) -> Result<(), GatewayError> {
        intent.is_in_mode(self.livemode)?;
        let (taken, status) = (intent.amount_received, intent.status);
        if status != Status::Succeeded {
            return Err(undone(intent));
        }
        if taken.is_some_and(|taken| taken != asked)
            || !intent.is_in_currency(&wire_currency(capture.amount))
        {
            let payment = &capture.payment_id;
            tracing::error!(
                payment,
                asked,
                ?taken,
                "Stripe captured another amount than requested"
            );
            return Err(differing("amount"));
        }
        Ok(())
    }

    pub(super) async fn cancel_within(
        &self,
        budget: Budget,
        cancel: &Cancel,
    ) -> Result<(), GatewayError> {
        self.cancel_for(budget, cancel, None).await
    }

    /// Cancels an intent for one of the reasons that Stripe knows.
    pub(super) async fn cancel_for(
        &self,
        budget: Budget,
        cancel: &Cancel,
        reason: Option<&str>,
    ) -> Result<(), GatewayError> {
        let path = ["payment_intents", cancel.transaction_id.as_str(), "cancel"];
        let params: Vec<_> = reason
            .map(|reason| ("cancellation_reason", reason))
            .into_iter()
            .collect();
        let call = Call::post(&path, &cancel.key, &params).on(cancel.account.as_deref());
        let ask = || self.find_cancel_within(budget, cancel);
        match self.make(budget, &call, &cancel.key, |_| ask()).await? {
            Told::Answered(intent) => is_canceled(&intent)?.ok_or_else(|| undone(&intent)),
            Told::Found(()) => Ok(()),
            Told::Declined(no) => unless_done(GatewayError::Declined(no.decline), ask().await),
            Told::Refused(refusal) => unless_done(GatewayError::Refused(refusal), ask().await),
        }
    }

    pub(super) async fn find_cancel_within(
        &self,
        budget: Budget,
        cancel: &Cancel,
    ) -> Result<Option<()>, GatewayError> {
        let account = cancel.account.as_deref();
        let intent = self
            .retrieve(budget, account, &cancel.transaction_id)
            .await?;
        is_canceled(&intent)
    }
}

/// Returns `None` if it is not captured yet. Declined if it was captured with another amount.
fn is_captured(intent: &Intent, capture: &Capture) -> Result<Option<()>, GatewayError> {
    let asked = wire_amount(capture.amount)?;
    match intent.status {
        // Some stand-ins for Stripe do not return the amount.
        Status::Succeeded if intent.amount_received.is_none_or(|taken| taken == asked) => {
            Ok(Some(()))
        }
        Status::Succeeded => Err(GatewayError::Declined(captured_otherwise(intent, capture))),
        // The hold lapsed, or was released at Stripe.
        Status::Canceled => Err(GatewayError::HoldLapsed {
            reason: intent.cancellation_reason(),
        }),
        Status::RequiresPaymentMethod => Err(unexpected()),
        _ => Ok(None),
    }
}

/// The decline of a capture after another amount was captured at the gateway.
fn captured_otherwise(intent: &Intent, capture: &Capture) -> Decline {
    let currency = capture.amount.currency();
    let taken = intent
        .amount_received
        .and_then(|taken| amount_of_wire(taken, currency));
    let unexpected = of_code("payment_intent_unexpected_state");
    match taken {
        Some(taken) => Decline {
            message: format!(
                "The gateway has captured {taken} {} already",
                currency.code()
            ),
            ..unexpected
        },
        None => unexpected,
    }
}

/// Returns `None` if it is not canceled yet. Declined if it can no longer be canceled.
fn is_canceled(intent: &Intent) -> Result<Option<()>, GatewayError> {
    match intent.status {
        Status::Canceled => Ok(Some(())),
        Status::Succeeded => Err(unexpected()),
        _ => Ok(None),
    }
}

fn unexpected() -> GatewayError {
    GatewayError::Declined(of_code("payment_intent_unexpected_state"))
}

/// The error for an intent that contradicts Stripe's own answer.
fn undone(intent: &Intent) -> GatewayError {
    GatewayError::Unknown {
        reason: format!("Stripe agreed, and the intent is in {:?}", intent.status),
    }
}

/// A refusal stands, unless the request is found done, because Stripe refuses to do a thing twice. If it is found declined, that
/// decline is more specific than the refusal.
pub(super) fn unless_done<T>(
    no: GatewayError,
    found: Result<Option<T>, GatewayError>,
) -> Result<T, GatewayError> {
    match found {
        Ok(found) => found.ok_or(no),
        Err(error) => Err(error),
    }
}
