//! A payment: one charge of a card, with what happened to it afterwards.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use strum::VariantArray;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::{Customer, PaymentError};
use crate::cards::CardSummary;
use crate::gateway::{CaptureMethod, Decline, GatewayToken};
use crate::money::{Amount, ArithmeticError};
use crate::problem::HasCharged;

/// A payment's state.
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
pub enum PaymentState {
    /// The outcome of the charge is not known yet.
    Processing,
    /// The card was charged.
    Success,
    /// The money is held until a capture or a cancel.
    Authorized,
    /// The gateway declined the charge.
    Failed,
    /// The hold was released.
    Canceled,
    /// A part was refunded.
    PartiallyRefunded,
    /// All of it was refunded.
    Refunded,
}

impl PaymentState {
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

    /// Whether a payment in this state took or holds money.
    pub fn charged(self) -> HasCharged {
        match self {
            Self::Processing => HasCharged::Unknown,
            Self::Success | Self::Authorized | Self::PartiallyRefunded | Self::Refunded => {
                HasCharged::Yes
            }
            Self::Failed | Self::Canceled => HasCharged::No,
        }
    }
}

impl PartialSchema for PaymentState {
    fn schema() -> RefOr<Schema> {
        schema_of_names(Self::ALL.iter().map(|state| state.as_str()))
    }
}

impl ToSchema for PaymentState {}

/// The schema of an enum with these names. The second is the example.
pub(super) fn schema_of_names(
    mut names: impl Iterator<Item = &'static str> + Clone,
) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names.clone()))
        .examples(names.nth(1))
        .into()
}

/// A capture or a cancel whose outcome is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A capture of a part or all of the hold.
    Capture {
        /// The part.
        amount: Amount,
    },
    /// A cancel of the whole hold.
    Cancel,
}

/// A payment, as the database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Payment {
    /// The merchant that it belongs to.
    pub merchant_id: String,
    /// `pay_` and a UUIDv7.
    pub id: String,
    /// The idempotency key that made it.
    pub idempotency_key: String,
    /// Its state.
    pub state: PaymentState,
    /// The amount of the charge or the hold.
    pub amount: Amount,
    /// How much of it was captured.
    pub captured: Amount,
    /// How much was refunded.
    pub refunded: Amount,
    /// How much is reserved for refunds under way.
    pub refunding: Amount,
    /// A capture or cancel under way.
    pub pending: Option<Pending>,
    /// The gateway's idempotency key of that one attempt. `None` also if an older version of this service began it.
    pub pending_attempt: Option<String>,
    /// Whether the charge took the money or held it.
    pub capture_method: CaptureMethod,
    /// [`crate::gateway::Gateway::kind`] of the gateway that charged it.
    pub gateway_type: String,
    /// The merchant's own account at the gateway, when the payment was made.
    pub gateway_account: Option<String>,
    /// The token that is charged. `None` if the gateway declined the card before it had a token.
    pub gateway_token: Option<GatewayToken>,
    /// The gateway's id of the charge.
    pub gateway_transaction_id: Option<String>,
    /// The parts of the card that may be kept.
    pub card: Option<CardSummary>,
    /// The payer.
    pub customer: Customer,
    /// True if the payer was not present to authenticate.
    pub off_session: bool,
    /// The reason for which the gateway released the hold by itself.
    pub cancellation_reason: Option<String>,
    /// What the payment is for.
    pub description: Option<String>,
    /// The client's own notes.
    pub metadata: BTreeMap<String, String>,
    /// Why the charge failed.
    pub failure: Option<Decline>,
    /// When it was made, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

impl Payment {
    /// How much can still be refunded.
    ///
    /// # Errors
    ///
    /// If the payment's amounts contradict each other.
    pub fn refundable(&self) -> Result<Amount, ArithmeticError> {
        let unrefunded = self.captured.checked_sub(self.refunded)?;
        unrefunded.checked_sub(self.refunding)
    }

    /// Ends the capture or cancel that is under way, and returns it.
    pub(super) fn end_pending(&mut self) -> Option<Pending> {
        self.pending_attempt = None;
        self.pending.take()
    }

    /// The state of a captured payment, by how much of it was refunded.
    pub(super) fn state_by_refunds(&self) -> PaymentState {
        if self.refunded.is_zero() {
            PaymentState::Success
        } else if self.refunded == self.captured {
            PaymentState::Refunded
        } else {
            PaymentState::PartiallyRefunded
        }
    }

    /// Refuses an operation while the payment itself, or a capture or cancel of it, is under way.
    pub(super) fn check_idle(&self) -> Result<(), PaymentError> {
        match (self.pending, self.state) {
            (Some(Pending::Capture { .. }), _) => {
                Err(PaymentError::Busy("a capture of the payment"))
            }
            (Some(Pending::Cancel), _) => Err(PaymentError::Busy("a cancel of the payment")),
            (None, PaymentState::Processing) => Err(PaymentError::Busy("the payment")),
            (None, _) => Ok(()),
        }
    }

    /// The state that clients see: `PROCESSING` while a capture or cancel is under way.
    pub fn shown_state(&self) -> PaymentState {
        if self.pending.is_some() {
            PaymentState::Processing
        } else {
            self.state
        }
    }

    /// An amount in the payment's currency, from minor units that are not negative.
    pub fn in_currency(&self, minor: i64) -> Amount {
        Amount::from_minor(minor, self.amount.currency())
    }
}
