//! What may be done to a charge that holds money: take it, or let it go.

use super::StripeGateway;
use super::amount::wire_amount;
use super::api::Call;
use super::budget::Budget;
use super::decline::of_code;
use super::intent::{Intent, Status};
use super::persist::Told;
use crate::gateway::{Cancel, Capture, Decline, GatewayError};

impl StripeGateway {
    pub(super) async fn capture_within(
        &self,
        budget: Budget,
        capture: &Capture,
    ) -> Result<(), GatewayError> {
        let amount = wire_amount(capture.amount)
            .map_err(GatewayError::Declined)?
            .to_string();
        let path = [
            "payment_intents",
            capture.transaction_id.as_str(),
            "capture",
        ];
        let params = [("amount_to_capture", amount.as_str())];
        let ask = || self.find_capture_within(budget, capture);
        match self
            .make(budget, &Call::post(&path, &capture.key, &params), ask)
            .await?
        {
            Told::Answered(intent) => is_captured(&intent, capture)?.ok_or_else(|| undone(&intent)),
            Told::Found(()) => Ok(()),
            Told::Refused(decline) => unless_done(decline, ask().await),
        }
    }

    pub(super) async fn find_capture_within(
        &self,
        budget: Budget,
        capture: &Capture,
    ) -> Result<Option<()>, GatewayError> {
        let intent = self.retrieve(budget, &capture.transaction_id).await?;
        is_captured(&intent, capture)
    }

    pub(super) async fn cancel_within(
        &self,
        budget: Budget,
        cancel: &Cancel,
    ) -> Result<(), GatewayError> {
        let path = ["payment_intents", cancel.transaction_id.as_str(), "cancel"];
        let ask = || self.find_cancel_within(budget, cancel);
        match self
            .make(budget, &Call::post(&path, &cancel.key, &[]), ask)
            .await?
        {
            Told::Answered(intent) => is_canceled(&intent)?.ok_or_else(|| undone(&intent)),
            Told::Found(()) => Ok(()),
            Told::Refused(decline) => unless_done(decline, ask().await),
        }
    }

    pub(super) async fn find_cancel_within(
        &self,
        budget: Budget,
        cancel: &Cancel,
    ) -> Result<Option<()>, GatewayError> {
        let intent = self.retrieve(budget, &cancel.transaction_id).await?;
        is_canceled(&intent)
    }
}

/// `None`: not yet. Declined: not any more, or with another amount.
fn is_captured(intent: &Intent, capture: &Capture) -> Result<Option<()>, GatewayError> {
    let asked = wire_amount(capture.amount).map_err(GatewayError::Declined)?;
    match intent.status {
        // Not everything that speaks like Stripe says how much.
        Status::Succeeded if intent.amount_received.is_none_or(|taken| taken == asked) => {
            Ok(Some(()))
        }
        Status::Succeeded | Status::Canceled | Status::RequiresPaymentMethod => Err(unexpected()),
        _ => Ok(None),
    }
}

/// `None`: not yet. Declined: not any more.
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

/// Stripe has agreed, and shows something else.
fn undone(intent: &Intent) -> GatewayError {
    GatewayError::Unknown {
        reason: format!("Stripe agreed, and the intent is in {:?}", intent.status),
    }
}

/// A refusal stands, unless what was asked for is found done: Stripe refuses to do a thing twice.
pub(super) fn unless_done<T>(
    decline: Decline,
    found: Result<Option<T>, GatewayError>,
) -> Result<T, GatewayError> {
    match found {
        Ok(found) => found.ok_or(GatewayError::Declined(decline)),
        Err(GatewayError::Declined(_)) => Err(GatewayError::Declined(decline)),
        Err(error) => Err(error),
    }
}
