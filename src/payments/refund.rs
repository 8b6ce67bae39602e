//! A refund: some of a payment's money, given back once.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::ser::Serializer;

use super::payment::states;
use crate::gateway::Decline;
use crate::money::Amount;

states! {
    /// Where a refund stands.
    RefundState {
        /// Its outcome is not known yet.
        Processing = "PROCESSING",
        /// The money was given back.
        Success = "SUCCESS",
        /// The gateway refused.
        Failed = "FAILED",
    }
}

/// A refund as it is in the database.
#[derive(Clone, Debug, PartialEq)]
pub struct Refund {
    /// Whose it is.
    pub merchant_id: String,
    /// `ref_` and a UUIDv7.
    pub id: String,
    /// The payment that is given back.
    pub payment_id: String,
    /// The key that made it.
    pub idempotency_key: String,
    /// Where it stands.
    pub state: RefundState,
    /// How much.
    pub amount: Amount,
    /// Why, for people.
    pub reason: Option<String>,
    /// The gateway's id of the refund.
    pub gateway_refund_id: Option<String>,
    /// Why it failed.
    pub failure: Option<Decline>,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefundView<'a> {
    id: &'a str,
    payment_id: &'a str,
    amount: String,
    currency: &'static str,
    state: RefundState,
    reason: Option<&'a str>,
    gateway_refund_id: Option<&'a str>,
    created_at: DateTime<Utc>,
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
