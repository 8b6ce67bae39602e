//! Gateways, which move the money.
//!
//! Every call carries an idempotency key of the gateway: the id of the payment or refund, or of the attempt. A gateway carries out
//! one call for each key. That makes it safe to repeat a call whose answer was lost, by the first request, a retry or recovery.

mod capture_method;
mod circuit;
mod gateways;
mod metrics;
mod simulated;
mod stripe;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;

pub use self::capture_method::CaptureMethod;
pub use self::circuit::Circuit;
pub use self::gateways::Gateways;
pub use self::metrics::describe_metrics;
pub use self::simulated::SimulatedGateway;
pub use self::stripe::{StripeGateway, StripeProbe, StripeSetupError};
use crate::cards::{Card, CardSummary};
use crate::money::Amount;

/// The gateway's own name of a card, which is safe to store and can be charged later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayToken(String);

impl GatewayToken {
    /// Takes a token as a client or the gateway spelled it.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The request of [`Gateway::charge`].
#[derive(Clone, Debug)]
pub struct Charge {
    /// The payment's id (`pay_…`), which is the gateway's idempotency key.
    pub payment_id: String,
    /// The payment's merchant, so that they recognise it at the gateway.
    pub merchant_id: String,
    /// The merchant's own account at the gateway. `None` for the account of the API key.
    pub account: Option<String>,
    /// The amount to charge or hold.
    pub amount: Amount,
    /// The card.
    pub token: GatewayToken,
    /// Whether to take the money now or hold it for a later capture.
    pub capture_method: CaptureMethod,
    /// The gateway's own customer that the card is saved for.
    pub gateway_customer_id: Option<String>,
    /// True if the payer is not present to authenticate.
    pub off_session: bool,
    /// What the payment is for, in the merchant's words.
    pub description: Option<String>,
    /// When the payment was claimed, by the database's clock. No call for it can be older.
    pub claimed_at: DateTime<Utc>,
}

/// A charge that the gateway made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The gateway's id of the charge.
    pub transaction_id: String,
    /// The card, if the gateway describes it.
    pub card: Option<CardSummary>,
}

/// The request of [`Gateway::capture`]: take `amount` of what an earlier charge held.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The gateway's idempotency key. It names this one attempt, so that another amount after a decline is another call.
    pub key: String,
    /// The payment's id.
    pub payment_id: String,
    /// The account that was charged.
    pub account: Option<String>,
    /// [`Charged::transaction_id`] of the charge.
    pub transaction_id: String,
    /// The amount to take. The rest is released.
    pub amount: Amount,
}

/// The request of [`Gateway::cancel`]: release all that a charge held.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// The gateway's idempotency key. It names this one attempt.
    pub key: String,
    /// The payment's id.
    pub payment_id: String,
    /// The account that was charged.
    pub account: Option<String>,
    /// [`Charged::transaction_id`] of the charge.
    pub transaction_id: String,
}

/// The request of [`Gateway::refund`]: pay `amount` back.
#[derive(Clone, Debug)]
pub struct GatewayRefund {
    /// The refund's id (`ref_…`), which is the gateway's idempotency key.
    pub refund_id: String,
    /// The payment that is refunded.
    pub payment_id: String,
    /// The payment's merchant.
    pub merchant_id: String,
    /// The account that was charged.
    pub account: Option<String>,
    /// [`Charged::transaction_id`] of the charge.
    pub transaction_id: String,
    /// The amount.
    pub amount: Amount,
}

/// A refund that the gateway made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refunded {
    /// The gateway's id of the refund.
    pub gateway_refund_id: String,
    /// Whether the money has arrived.
    pub progress: RefundProgress,
}

/// How far a refund that the gateway accepted has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundProgress {
    /// The money was paid back.
    Succeeded,
    /// The gateway has accepted it. It may still fail.
    Pending,
}

/// A decline, which is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decline {
    /// Machine-readable, with Stripe's names: `insufficient_funds`, `lost_card`, …
    pub code: String,
    /// For people: `Insufficient funds`.
    pub message: String,
    /// What the gateway and the card network advise.
    pub advice: Advice,
}

impl Decline {
    /// A decline without advice.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            advice: Advice::default(),
        }
    }
}

/// What a decline says in addition to its code. See <https://docs.stripe.com/declines/codes>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// `try_again_later`, `confirm_card_data`, `do_not_try_again`.
    pub advice_code: Option<String>,
    /// The card network's advice, two digits.
    pub network_advice_code: Option<String>,
    /// The card network's own decline code.
    pub network_decline_code: Option<String>,
}

/// A refusal of the request itself: an amount below the gateway's minimum, or a token that it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gateway's code: `amount_too_small`, `resource_missing`, …
    pub code: String,
    /// For people, without anything that the client sent.
    pub message: String,
    /// The field that is wrong, as this service's API names it (`amount`, `paymentMethod.token`), if it is known.
    pub param: Option<String>,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Declined, which is final. Repeating the call brings the same.
    #[error("declined: {}", .0.code)]
    Declined(Decline),
    /// The gateway found the request's content wrong, and did nothing. Repeating the call brings the same. A corrected request may
    /// succeed.
    #[error("refused: {}", .0.code)]
    Refused(Refusal),
    /// The gateway refused this service, not the payer: its API key, account, API version or capabilities. Nothing was done;
    /// the same request succeeds once an operator has fixed that.
    #[error("the gateway refuses this service: {reason}")]
    Misconfigured {
        /// For the log and the operator.
        reason: String,
    },
    /// The call certainly did nothing: it was not sent, or it was rejected before it began.
    #[error("the gateway could not be reached: {reason}")]
    NothingHappened {
        /// For the log.
        reason: String,
    },
    /// The hold of a charge is gone: the gateway released it by itself, or a person did so there. Final.
    #[error("the gateway let the hold go")]
    HoldLapsed {
        /// The gateway's reason, if it gives one.
        reason: Option<String>,
    },
    /// The call may have been carried out. Only the gateway knows, and it can be asked.
    #[error("the gateway's answer is not known: {reason}")]
    Unknown {
        /// For the log.
        reason: String,
    },
}

/// A payment gateway.
///
/// Implementations limit the time of each call, retry within that time what can be retried, and never repeat a card's number in an
/// error.
pub trait Gateway: Send + Sync + 'static {
    /// The name that payments carry as `gatewayType`.
    fn kind(&self) -> &'static str;

    /// False while calls are not tried because the gateway is down.
    fn is_available(&self) -> bool {
        true
    }

    /// Why the gateway refuses this service, for the operator. Returns `None` if its latest answers were not such refusals.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// True if [`Gateway::tokenize`] calls another system. Then it is worth checking first whether the idempotency key is new.
    fn tokenizes_remotely(&self) -> bool;

    /// True if a merchant may have an account of their own at the gateway.
    fn has_accounts(&self) -> bool {
        false
    }

    /// Turns a card into a token of the account, or of the API key's own account. This charges nothing, so a call without an answer
    /// counts as [`GatewayError::NothingHappened`].
    fn tokenize<'a>(
        &'a self,
        card: &'a Card,
        account: Option<&'a str>,
    ) -> BoxFuture<'a, Result<GatewayToken, GatewayError>>;

    /// The card of a token, as far as it is known without a call, for the payment's `paymentMethod`.
    fn describe_token(&self, token: &GatewayToken) -> Option<CardSummary>;

    /// Charges a card once for each `payment_id`.
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>>;

    /// Captures once for each `key`. Declined as `canceled` if the hold lapsed or was released at the gateway.
    fn capture<'a>(&'a self, capture: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>>;

    /// Cancels once for each `key`.
    fn cancel<'a>(&'a self, cancel: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>>;

    /// Refunds once for each `refund_id`.
    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>>;

    /// Asks for the result of a charge that may have been made. Returns `Ok(None)` only if a consistent read shows that there is
    /// none and no call for it can still be under way. Never charges.
    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>>;

    /// Asks whether a capture happened. Never captures.
    fn find_capture<'a>(
        &'a self,
        capture: &'a Capture,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>>;

    /// Asks whether a cancel happened. Never cancels.
    fn find_cancel<'a>(
        &'a self,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>>;

    /// Asks for the result of a refund that may have been made. Never refunds.
    fn find_refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Option<Refunded>, GatewayError>>;
}
