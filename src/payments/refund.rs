//! A refund of all or a part of a payment.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::ser::Serializer;
use strum::VariantArray;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Payment;
use super::payment::schema_of_names;
use crate::gateway::{Decline, GatewayRefund};
use crate::money::Amount;

/// A refund's state.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE", const_into_str)]
pub enum RefundState {
    /// Its outcome is not known yet.
    Processing,
    /// The gateway has accepted it. It may still fail.
    Pending,
    /// The money was paid back.
    Success,
    /// The gateway declined it.
    Failed,
}

impl RefundState {
    /// All states.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The name in the API and the database.
    pub fn as_str(self) -> &'static str {
        self.into_str()
    }

    /// Finds a state by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

impl PartialSchema for RefundState {
    fn schema() -> RefOr<Schema> {
        schema_of_names(Self::ALL.iter().map(|state| state.as_str()))
    }
}

impl ToSchema for RefundState {}

/// A refund, as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refund {
    /// The merchant that it belongs to.
    pub merchant_id: String,
    /// `ref_` and a UUIDv7.
    pub id: String,
    /// The payment that is refunded.
    pub payment_id: String,
    /// The idempotency key that made it.
    pub idempotency_key: String,
    /// Its state.
    pub state: RefundState,
    /// The amount.
    pub amount: Amount,
    /// The merchant's reason, for people.
    pub reason: Option<String>,
    /// The gateway's id of the refund.
    pub gateway_refund_id: Option<String>,
    /// Why it failed.
    pub failure: Option<Decline>,
    /// When it was made, by the database's clock.
    pub created_at: DateTime<Utc>,
}

impl Refund {
    /// The request to the gateway for this refund.
    pub(super) fn to_gateway(&self, payment: &Payment) -> GatewayRefund {
        GatewayRefund {
            refund_id: self.id.clone(),
            payment_id: payment.id.clone(),
            merchant_id: payment.merchant_id.clone(),
            account: payment.gateway_account.clone(),
            transaction_id: payment.gateway_transaction_id.clone().unwrap_or_default(),
            amount: self.amount,
        }
    }
}

/// A refund, as clients see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Refund)]
struct RefundView<'a> {
    /// `ref_` and a UUIDv7.
    #[schema(examples("ref_01936d2f-11aa-7b0c-8e55-2d1f4c6b7a90"))]
    id: &'a str,
    /// The payment that is refunded.
    #[schema(examples("pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11"))]
    payment_id: &'a str,
    /// The amount, in the currency's major unit, with all of its decimals.
    #[schema(examples("40.00"))]
    amount: String,
    /// ISO 4217.
    #[schema(examples("USD"))]
    currency: &'static str,
    /// Its state.
    state: RefundState,
    /// The client's reason.
    #[schema(required = true, examples("The lamp arrived broken"))]
    reason: Option<&'a str>,
    /// The gateway's id of the refund, as soon as it is known.
    #[schema(required = true, examples("sim_re_01936d2f"))]
    gateway_refund_id: Option<&'a str>,
    /// When it was created, RFC 3339 in UTC, by the database's clock.
    #[schema(examples("2026-03-01T12:05:00.123456Z"))]
    created_at: DateTime<Utc>,
}

impl PartialSchema for Refund {
    fn schema() -> RefOr<Schema> {
        RefundView::schema()
    }
}

impl ToSchema for Refund {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        RefundView::schemas(schemas);
    }
}

impl Serialize for Refund {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RefundView {
            id: &self.id,
            payment_id: &self.payment_id,
            amount: self.amount.to_string(),
            currency: self.amount.currency().code(),
            state: self.state,
            reason: self.reason.as_deref(),
            gateway_refund_id: self.gateway_refund_id.as_deref(),
            created_at: self.created_at,
        }
        .serialize(serializer)
    }
}
