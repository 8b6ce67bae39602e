//! A payment, as clients see it: its JSON form and its schema.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::ser::Serializer;
use utoipa::openapi::{Object, ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::{Payment, PaymentState};
use crate::gateway::Decline;

/// A payment, as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Payment)]
struct PaymentView<'a> {
    /// `pay_` and a UUIDv7.
    #[schema(examples("pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11"))]
    id: &'a str,
    /// The key that made it.
    #[schema(examples("order-1001"))]
    idempotency_key: &'a str,
    /// Its state. `PROCESSING`: its outcome, or that of a capture or cancel, is not known yet.
    state: PaymentState,
    /// The requested amount, in the currency's major unit, with all of its decimals.
    #[schema(examples("99.99"))]
    amount: String,
    /// ISO 4217.
    #[schema(examples("USD"))]
    currency: &'static str,
    /// `AUTOMATIC`: the money is taken at once. `MANUAL`: it is held until a capture.
    #[schema(pattern = "^(AUTOMATIC|MANUAL)$", examples("AUTOMATIC"))]
    capture_method: &'static str,
    /// The amount that was captured, in the currency's major unit.
    #[schema(examples("99.99"))]
    amount_captured: String,
    /// The amount that was refunded, in the currency's major unit.
    #[schema(examples("0.00"))]
    amount_refunded: String,
    payment_method: PaymentMethodView<'a>,
    customer: CustomerView<'a>,
    /// The gateway of the payment: `SIMULATED` or `STRIPE`.
    #[schema(examples("SIMULATED"))]
    gateway_type: &'a str,
    /// The gateway's id of the charge, as soon as it is known.
    #[schema(required = true, examples("sim_01936d2e"))]
    gateway_transaction_id: Option<&'a str>,
    /// The gateway's reason, if it released the hold by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("automatic"))]
    cancellation_reason: Option<&'a str>,
    /// Why it failed; null if it did not.
    #[schema(required = true)]
    failure: Option<FailureView<'a>>,
    /// As the client sent it.
    #[schema(required = true, examples("Order 1001"))]
    description: Option<&'a str>,
    #[schema(schema_with = metadata)]
    metadata: &'a BTreeMap<String, String>,
    /// When it was created, RFC 3339 in UTC, by the database's clock.
    #[schema(examples("2026-03-01T12:00:00.123456Z"))]
    created_at: DateTime<Utc>,
    /// When its state last changed, RFC 3339 in UTC.
    #[schema(examples("2026-03-01T12:00:00.234567Z"))]
    updated_at: DateTime<Utc>,
}

/// The payment method.
#[derive(Serialize, ToSchema)]
#[schema(as = PaymentMethod)]
struct PaymentMethodView<'a> {
    /// Always `CARD`.
    #[schema(examples("CARD"))]
    r#type: &'static str,
    details: CardView<'a>,
}

/// The parts of a card that may be shown (PCI DSS 3.4.1). All are null if the gateway does not describe the token's card.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Card)]
struct CardView<'a> {
    /// `visa`, `mastercard`, …
    #[schema(required = true, examples("visa"))]
    brand: Option<&'a str>,
    /// The number's last four digits.
    #[schema(required = true, examples("4242"))]
    last4: Option<&'a str>,
    /// 1–12.
    #[schema(required = true, minimum = 1, maximum = 12, examples(12))]
    expiry_month: Option<u8>,
    /// Four digits.
    #[schema(required = true, examples(2031))]
    expiry_year: Option<u16>,
    /// The name on the card.
    #[schema(required = true, examples("Test User"))]
    card_holder_name: Option<&'a str>,
}

/// The payer, as the client described them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Customer)]
struct CustomerView<'a> {
    /// The client's own id of the customer.
    #[schema(required = true, examples("customer-7"))]
    id: Option<&'a str>,
    /// The customer's email address.
    #[schema(required = true, examples("test.user@example.com"))]
    email: Option<&'a str>,
    /// The customer's name.
    #[schema(required = true, examples("Test User"))]
    name: Option<&'a str>,
    /// The gateway's own customer, if the client named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("cus_9s6XKzkNRiz8i3"))]
    gateway_customer_id: Option<&'a str>,
}

/// The gateway's decline.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Failure)]
struct FailureView<'a> {
    /// The decline code, for programs.
    #[schema(examples("insufficient_funds"))]
    code: &'a str,
    /// The message, for people.
    #[schema(examples("Insufficient funds"))]
    message: &'a str,
    /// The gateway's advice: `try_again_later`, `confirm_card_data`, `do_not_try_again`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("try_again_later"))]
    advice_code: Option<&'a str>,
    /// The card network's advice.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("02"))]
    network_advice_code: Option<&'a str>,
    /// The card network's own decline code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, examples("51"))]
    network_decline_code: Option<&'a str>,
}

impl<'a> From<&'a Decline> for FailureView<'a> {
    fn from(decline: &'a Decline) -> Self {
        Self {
            code: &decline.code,
            message: &decline.message,
            advice_code: decline.advice.advice_code.as_deref(),
            network_advice_code: decline.advice.network_advice_code.as_deref(),
            network_decline_code: decline.advice.network_decline_code.as_deref(),
        }
    }
}

fn metadata() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(ObjectBuilder::new().schema_type(Type::String)))
        .description(Some("The client's own notes, as it sent them."))
        .examples([serde_json::json!({"order": "1001"})])
        .build()
}

impl PartialSchema for Payment {
    fn schema() -> RefOr<Schema> {
        PaymentView::schema()
    }
}

impl ToSchema for Payment {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        PaymentView::schemas(schemas);
    }
}

impl Serialize for Payment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let card = self.card.as_ref();
        PaymentView {
            id: &self.id,
            idempotency_key: &self.idempotency_key,
            state: self.shown_state(),
            amount: self.amount.to_string(),
            currency: self.amount.currency().code(),
            capture_method: self.capture_method.as_str(),
            amount_captured: self.captured.to_string(),
            amount_refunded: self.refunded.to_string(),
            payment_method: PaymentMethodView {
                r#type: "CARD",
                details: CardView {
                    brand: card.map(|card| card.brand.as_str()),
                    last4: card.map(|card| card.last4.as_str()),
                    expiry_month: card.map(|card| card.expiry_month),
                    expiry_year: card.map(|card| card.expiry_year),
                    card_holder_name: card.and_then(|card| card.holder_name.as_deref()),
                },
            },
            customer: CustomerView {
                id: self.customer.id.as_deref(),
                email: self.customer.email.as_deref(),
                name: self.customer.name.as_deref(),
                gateway_customer_id: self.customer.gateway_customer_id.as_deref(),
            },
            gateway_type: &self.gateway_type,
            gateway_transaction_id: self.gateway_transaction_id.as_deref(),
            cancellation_reason: self.cancellation_reason.as_deref(),
            failure: self.failure.as_ref().map(FailureView::from),
            description: self.description.as_deref(),
            metadata: &self.metadata,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
        .serialize(serializer)
    }
}
