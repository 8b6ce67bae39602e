//! A payment: money that a merchant asked for once.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::ser::Serializer;

use super::{CaptureMethod, Customer};
use crate::cards::CardSummary;
use crate::gateway::{Decline, GatewayToken};
use crate::money::Amount;

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$state_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$state_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The state as the API and the database spell it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Finds a state by its name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|state| state.as_str() == name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(super) use states;

states! {
    /// Where a payment stands.
    PaymentState {
        /// Its outcome is not known yet.
        Processing = "PROCESSING",
        /// The money was taken.
        Success = "SUCCESS",
        /// The money is held, for a capture or a cancel.
        Authorized = "AUTHORIZED",
        /// The gateway declined.
        Failed = "FAILED",
        /// What was held was let go.
        Canceled = "CANCELED",
        /// Some of it was given back.
        PartiallyRefunded = "PARTIALLY_REFUNDED",
        /// All of it was given back.
        Refunded = "REFUNDED",
    }
}

/// A capture or a cancel whose outcome is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// Of this much, in the currency's minor unit.
    Capture {
        /// Minor units.
        minor: i64,
    },
    /// Of all that is held.
    Cancel,
}

/// A payment as it is in the database.
#[derive(Clone, Debug, PartialEq)]
pub struct Payment {
    /// Whose it is.
    pub merchant_id: String,
    /// `pay_` and a UUIDv7.
    pub id: String,
    /// The key that made it.
    pub idempotency_key: String,
    /// Where it stands.
    pub state: PaymentState,
    /// What was asked for.
    pub amount: Amount,
    /// Minor units that were taken.
    pub captured_minor: i64,
    /// Minor units that were given back.
    pub refunded_minor: i64,
    /// Minor units that refunds under way have reserved.
    pub refunding_minor: i64,
    /// A capture or cancel under way.
    pub pending: Option<Pending>,
    /// When the money is taken.
    pub capture_method: CaptureMethod,
    /// [`crate::gateway::Gateway::kind`].
    pub gateway_type: String,
    /// What is charged; `None` where the gateway refused the card before there was a token.
    pub gateway_token: Option<GatewayToken>,
    /// The gateway's id of the charge.
    pub gateway_transaction_id: Option<String>,
    /// What may be kept of the card.
    pub card: Option<CardSummary>,
    /// Who pays.
    pub customer: Customer,
    /// What for.
    pub description: Option<String>,
    /// The client's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Why it failed.
    pub failure: Option<Decline>,
    /// By the database's clock.
    pub created_at: DateTime<Utc>,
    /// When its state last changed.
    pub updated_at: DateTime<Utc>,
}

impl Payment {
    /// Minor units that can still be given back.
    pub fn refundable_minor(&self) -> i64 {
        self.captured_minor - self.refunded_minor - self.refunding_minor
    }

    /// The state that clients see: while a capture or cancel is under way, its outcome is what is being processed.
    pub fn shown_state(&self) -> PaymentState {
        if self.pending.is_some() {
            PaymentState::Processing
        } else {
            self.state
        }
    }

    /// An amount in the payment's currency.
    pub fn in_currency(&self, minor: i64) -> Amount {
        Amount::from_minor(minor, self.amount.currency())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentView<'a> {
    id: &'a str,
    idempotency_key: &'a str,
    state: PaymentState,
    amount: String,
    currency: &'static str,
    capture_method: &'static str,
    amount_captured: String,
    amount_refunded: String,
    payment_method: PaymentMethodView<'a>,
    customer: CustomerView<'a>,
    gateway_type: &'a str,
    gateway_transaction_id: Option<&'a str>,
    failure: Option<FailureView<'a>>,
    description: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct PaymentMethodView<'a> {
    r#type: &'static str,
    details: CardView<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CardView<'a> {
    brand: Option<&'a str>,
    last4: Option<&'a str>,
    expiry_month: Option<u8>,
    expiry_year: Option<u16>,
    card_holder_name: Option<&'a str>,
}

#[derive(Serialize)]
struct CustomerView<'a> {
    id: Option<&'a str>,
    email: Option<&'a str>,
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct FailureView<'a> {
    code: &'a str,
    message: &'a str,
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
            amount_captured: self.in_currency(self.captured_minor).to_string(),
            amount_refunded: self.in_currency(self.refunded_minor).to_string(),
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
            },
            gateway_type: &self.gateway_type,
            gateway_transaction_id: self.gateway_transaction_id.as_deref(),
            failure: self
                .failure
                .as_ref()
                .map(|Decline { code, message }| FailureView { code, message }),
            description: self.description.as_deref(),
            metadata: &self.metadata,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
        .serialize(serializer)
    }
}
