//! Payment intents and refunds: their state, and their JSON.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::cards::{Decline, PaymentMethod};
use super::contract::published;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    RequiresPaymentMethod,
    RequiresAction,
    RequiresCapture,
    Succeeded,
    Canceled,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::RequiresPaymentMethod => "requires_payment_method",
            Status::RequiresAction => "requires_action",
            Status::RequiresCapture => "requires_capture",
            Status::Succeeded => "succeeded",
            Status::Canceled => "canceled",
        }
    }
}

pub(super) struct Intent {
    pub(super) id: String,
    pub(super) charge_id: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) manual: bool,
    pub(super) payment_method: PaymentMethod,
    pub(super) customer: Option<String>,
    pub(super) description: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) status: Status,
    pub(super) decline: Option<Decline>,
    pub(super) captured: i64,
    pub(super) refunded: i64,
    pub(super) cancellation_reason: Option<String>,
    /// Unix seconds, for its JSON.
    pub(super) created: i64,
    /// The same moment on a clock that only goes forward, for the search's lag.
    pub(super) born: Instant,
    /// The card's issuer has said yes: there is, or was, money behind this intent.
    pub(super) authorized: bool,
}

impl Intent {
    pub(super) fn payment_id(&self) -> String {
        self.metadata.get("payment_id").cloned().unwrap_or_default()
    }

    pub(super) fn json(&self, expand: &[String]) -> Value {
        let expanded = |field: &str| expand.iter().any(|e| e == field);
        let capturable = if self.status == Status::RequiresCapture {
            self.amount
        } else {
            0
        };
        published(json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": capturable,
            "amount_received": self.captured,
            "cancellation_reason": self.cancellation_reason,
            "capture_method": if self.manual { "manual" } else { "automatic_async" },
            "client_secret": format!("{}_secret_test", self.id),
            "created": self.created,
            "currency": self.currency,
            "customer": self.customer,
            "description": self.description,
            "last_payment_error": self.last_payment_error(),
            "latest_charge": self.latest_charge(expanded("latest_charge")),
            "livemode": false,
            "metadata": self.metadata,
            "next_action": (self.status == Status::RequiresAction).then(|| json!({
                "type": "use_stripe_sdk",
                "use_stripe_sdk": {"type": "three_d_secure_redirect"},
            })),
            "payment_method": match expanded("payment_method") {
                true => self.payment_method.json(),
                false => json!(self.payment_method.id),
            },
            "payment_method_types": ["card"],
            "status": self.status.name(),
        }))
    }

    /// Cleared by any later change of the intent: after a cancel only its charge says why it was declined.
    fn last_payment_error(&self) -> Option<Value> {
        let decline = self.decline.filter(|_| self.status != Status::Canceled)?;
        let advice = decline.advice;
        Some(json!({
            "type": "card_error",
            "advice_code": advice.map(|advice| advice.0),
            "code": decline.code,
            "decline_code": decline.decline_code,
            "message": decline.message,
            "network_advice_code": advice.map(|advice| advice.1),
            "network_decline_code": advice.map(|advice| advice.2),
        }))
    }

    /// A declined attempt is a charge too, a failed one. One that waits for 3-D Secure has made none yet.
    fn latest_charge(&self, expanded: bool) -> Value {
        if !self.authorized && self.decline.is_none() {
            return Value::Null;
        }
        if !expanded {
            return json!(self.charge_id);
        }
        published(json!({
            "id": self.charge_id,
            "object": "charge",
            "amount": self.amount,
            "amount_captured": self.captured,
            "amount_refunded": self.refunded,
            "captured": self.captured > 0,
            "currency": self.currency,
            "created": self.created,
            "failure_code": self.decline.map(|decline| decline.code),
            "failure_message": self.decline.map(|decline| decline.message),
            "livemode": false,
            "outcome": self.outcome(),
            "paid": self.authorized,
            "payment_intent": self.id,
            "payment_method": self.payment_method.id,
            "payment_method_details": {"type": "card", "card": self.payment_method.card()},
            "refunded": self.captured > 0 && self.refunded == self.captured,
            "status": if self.authorized { "succeeded" } else { "failed" },
        }))
    }

    fn outcome(&self) -> Value {
        let Some(decline) = self.decline else {
            return json!({"network_status": "approved_by_network", "reason": null, "type": "authorized"});
        };
        json!({
            "advice_code": decline.advice.map(|advice| advice.0),
            "network_advice_code": decline.advice.map(|advice| advice.1),
            "network_decline_code": decline.advice.map(|advice| advice.2),
            "network_status": "declined_by_network",
            "reason": decline.decline_code,
            "type": "issuer_declined",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefundStatus {
    Pending,
    Succeeded,
    Failed,
}

impl RefundStatus {
    pub(super) fn name(self) -> &'static str {
        match self {
            RefundStatus::Pending => "pending",
            RefundStatus::Succeeded => "succeeded",
            RefundStatus::Failed => "failed",
        }
    }
}

pub(super) struct Refund {
    pub(super) id: String,
    pub(super) intent_id: String,
    pub(super) charge_id: String,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) reason: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) status: RefundStatus,
    pub(super) created: i64,
}

impl Refund {
    pub(super) fn json(&self) -> Value {
        let failed = self.status == RefundStatus::Failed;
        published(json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "charge": self.charge_id,
            "created": self.created,
            "currency": self.currency,
            "failure_reason": failed.then_some("unknown"),
            "metadata": self.metadata,
            "payment_intent": self.intent_id,
            "pending_reason": (self.status == RefundStatus::Pending).then_some("processing"),
            "reason": self.reason,
            "status": self.status.name(),
        }))
    }
}
