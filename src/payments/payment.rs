//! A payment: money that a merchant asked for once.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::ser::Serializer;

use super::{CaptureMethod, Customer, PaymentError};
use crate::cards::CardSummary;
use crate::gateway::{Decline, GatewayToken};
use crate::money::Amount;
use crate::problem::Charged;

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

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .enum_values(Some(Self::ALL.iter().map(|state| state.as_str())))
                    .examples(Self::ALL.get(1).map(|state| state.as_str()))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
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

impl PaymentState {
    /// Whether a payment in this state took or holds money.
    pub fn charged(self) -> Charged {
        match self {
            Self::Processing => Charged::Unknown,
            Self::Success | Self::Authorized | Self::PartiallyRefunded | Self::Refunded => {
                Charged::Yes
            }
            Self::Failed | Self::Canceled => Charged::No,
        }
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
    /// The gateway's idempotency key of that one attempt. `None` also where an older version of this service began it.
    pub pending_attempt: Option<String>,
    /// When the money is taken.
    pub capture_method: CaptureMethod,
    /// [`crate::gateway::Gateway::kind`] of the gateway that it began with.
    pub gateway_type: String,
    /// The merchant's own account there when it began.
    pub gateway_account: Option<String>,
    /// What is charged; `None` where the gateway refused the card before there was a token.
    pub gateway_token: Option<GatewayToken>,
    /// The gateway's id of the charge.
    pub gateway_transaction_id: Option<String>,
    /// What may be kept of the card.
    pub card: Option<CardSummary>,
    /// Who pays.
    pub customer: Customer,
    /// True where the payer was not there to authenticate.
    pub off_session: bool,
    /// Why what was held was let go, where the gateway did it.
    pub cancellation_reason: Option<String>,
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

    /// Ends the capture or cancel that is under way.
    pub(super) fn end_pending(&mut self) -> Option<Pending> {
        self.pending_attempt = None;
        self.pending.take()
    }

    /// Where a payment stands of which this much was given back.
    pub(super) fn state_by_refunds(&self) -> PaymentState {
        match self.refunded_minor {
            0 => PaymentState::Success,
            refunded if refunded == self.captured_minor => PaymentState::Refunded,
            _ => PaymentState::PartiallyRefunded,
        }
    }

    /// Refuses an operation while the payment itself, a capture or a cancel of it is under way.
    pub(super) fn is_idle(&self) -> Result<(), PaymentError> {
        match (self.pending, self.state) {
            (Some(Pending::Capture { .. }), _) => {
                Err(PaymentError::Busy("a capture of the payment"))
            }
            (Some(Pending::Cancel), _) => Err(PaymentError::Busy("a cancel of the payment")),
            (None, PaymentState::Processing) => Err(PaymentError::Busy("the payment")),
            (None, _) => Ok(()),
        }
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
