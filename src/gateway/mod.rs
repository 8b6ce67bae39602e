//! A gateway moves the money; payonce only asks it to, with a key of its own for each thing it asks.
//!
//! Every call is named by the payment's or refund's id, and a gateway makes what it is asked for once for each name. That
//! is what makes it safe to ask again when an answer was lost, by the first request, by a retry or by recovery.

mod circuit;
mod gateways;
mod metrics;
mod simulated;
mod stripe;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;

pub use self::circuit::Circuit;
pub use self::gateways::Gateways;
pub use self::metrics::describe_metrics;
pub use self::simulated::SimulatedGateway;
pub use self::stripe::{StripeGateway, StripeProbe, StripeSetupError};
use crate::cards::{Card, CardSummary};
use crate::money::Amount;
use crate::payments::CaptureMethod;

/// The gateway's own name of a card, safe to store and to charge later.
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

/// What is asked of [`Gateway::charge`].
#[derive(Clone, Debug)]
pub struct Charge {
    /// The payment's id (`pay_…`): the gateway's idempotency key for this charge.
    pub payment_id: String,
    /// Whose payment it is, so that a merchant recognises it at the gateway.
    pub merchant_id: String,
    /// The merchant's own account at the gateway; `None` for the account of the API key.
    pub account: Option<String>,
    /// How much.
    pub amount: Amount,
    /// The card.
    pub token: GatewayToken,
    /// Take the money now, or hold it for a later capture.
    pub capture_method: CaptureMethod,
    /// The gateway's own customer that the card is saved for.
    pub gateway_customer_id: Option<String>,
    /// True where the payer is not there to authenticate.
    pub off_session: bool,
    /// What the payment is for, in the merchant's words.
    pub description: Option<String>,
    /// When the payment was claimed, by the database's clock: no call for it can be older.
    pub claimed_at: DateTime<Utc>,
}

/// A charge that the gateway made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The gateway's id of the charge.
    pub transaction_id: String,
    /// What the gateway says of the card, where it says anything.
    pub card: Option<CardSummary>,
}

/// What is asked of [`Gateway::capture`]: take `amount` of what an earlier charge held.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The gateway's idempotency key: it names this one attempt, so that another amount after a refusal is another call.
    pub key: String,
    /// The payment's id.
    pub payment_id: String,
    /// The account that the payment began with.
    pub account: Option<String>,
    /// [`Charged::transaction_id`] of the charge.
    pub transaction_id: String,
    /// How much of it; the rest is let go.
    pub amount: Amount,
}

/// What is asked of [`Gateway::cancel`]: let go of all that a charge held.
#[derive(Clone, Debug)]
pub struct Cancel {
    /// The gateway's idempotency key: it names this one attempt.
    pub key: String,
    /// The payment's id.
    pub payment_id: String,
    /// The account that the payment began with.
    pub account: Option<String>,
    /// [`Charged::transaction_id`] of the charge.
    pub transaction_id: String,
}

/// What is asked of [`Gateway::refund`]: give `amount` back.
#[derive(Clone, Debug)]
pub struct GatewayRefund {
    /// The refund's id (`ref_…`): the gateway's idempotency key.
    pub refund_id: String,
    /// The payment that is given back.
    pub payment_id: String,
    /// Whose payment it is.
    pub merchant_id: String,
    /// The account that the payment began with.
    pub account: Option<String>,
    /// [`Charged::transaction_id`] of the charge.
    pub transaction_id: String,
    /// How much.
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
    /// The money was given back.
    Succeeded,
    /// The gateway has accepted it; it may still fail.
    Pending,
}

/// The gateway's final no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decline {
    /// Machine-readable, in Stripe's words: `insufficient_funds`, `lost_card`, …
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

/// What a decline says besides its code. See <https://docs.stripe.com/declines/codes>.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// `try_again_later`, `confirm_card_data`, `do_not_try_again`.
    pub advice_code: Option<String>,
    /// The card network's advice, two digits.
    pub network_advice_code: Option<String>,
    /// The card network's own decline code.
    pub network_decline_code: Option<String>,
}

/// Why the gateway found the request itself wrong: an amount below its minimum, a token that it does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gateway's code: `amount_too_small`, `resource_missing`, …
    pub code: String,
    /// For people, without anything that was sent.
    pub message: String,
    /// The parameter of the API that is wrong, in the client's words (`amount`, `paymentMethod.token`), where it is known.
    pub param: Option<String>,
}

/// Why a call brought no success. The variant is the first thing to know of it.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A final no. Asking again brings the same.
    #[error("declined: {}", .0.code)]
    Declined(Decline),
    /// The gateway found the request's content wrong, and did nothing. Asking again brings the same; a corrected request may
    /// succeed.
    #[error("refused: {}", .0.code)]
    Refused(Refusal),
    /// The gateway refused this service, not the payer: its API key, account, API version or capabilities. Nothing was done;
    /// the same request succeeds once an operator has put it right.
    #[error("the gateway refuses this service: {reason}")]
    Misconfigured {
        /// For the log and the operator.
        reason: String,
    },
    /// It is certain that this call did nothing: it was not sent, or turned away before it began.
    #[error("the gateway could not be reached: {reason}")]
    NothingHappened {
        /// For the log.
        reason: String,
    },
    /// What a charge held is not held any more: the gateway let it go by itself, or somebody did it there. Final.
    #[error("the gateway let the hold go")]
    HoldLapsed {
        /// The gateway's reason, where it gives one.
        reason: Option<String>,
    },
    /// The call may have been carried out. Only the gateway knows, and it will say when asked again.
    #[error("the gateway's answer is not known: {reason}")]
    Unknown {
        /// For the log.
        reason: String,
    },
}

/// A payment gateway.
///
/// Implementations bound each call in time on their own, retry inside that time what can be retried, and never repeat a
/// card's number in an error.
pub trait Gateway: Send + Sync + 'static {
    /// The name that payments carry as `gatewayType`.
    fn kind(&self) -> &'static str;

    /// False while calls are not even tried, because the gateway is down.
    fn is_available(&self) -> bool {
        true
    }

    /// Why the gateway refuses this service, for the operator; `None` where it does not, as far as its latest answers tell.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// True when [`Gateway::tokenize`] calls another system, so that it is worth knowing first whether the key is new.
    fn tokenizes_remotely(&self) -> bool;

    /// True where a merchant may have an account of its own at the gateway.
    fn has_accounts(&self) -> bool {
        false
    }

    /// Turns a card into a token of the account, or of the API key's own. Nothing is charged by this, so an outcome that is not
    /// known is "nothing happened".
    fn tokenize<'a>(
        &'a self,
        card: &'a Card,
        account: Option<&'a str>,
    ) -> BoxFuture<'a, Result<GatewayToken, GatewayError>>;

    /// What is known of a token without a call, for the payment's `paymentMethod`.
    fn describe_token(&self, token: &GatewayToken) -> Option<CardSummary>;

    /// Charges a card once for each `payment_id`.
    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>>;

    /// Captures once for each `key`. Declined as `canceled` where the hold lapsed or was let go of at the gateway.
    fn capture<'a>(&'a self, capture: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>>;

    /// Cancels once for each `key`.
    fn cancel<'a>(&'a self, cancel: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>>;

    /// Refunds once for each `refund_id`.
    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>>;

    /// Asks what became of a charge that was, or was not, made. Returns `Ok(None)` only where a consistent read shows that there
    /// is none and that no call for it can still be under way. It never charges.
    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>>;

    /// Asks whether a capture happened. It never captures.
    fn find_capture<'a>(
        &'a self,
        capture: &'a Capture,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>>;

    /// Asks whether a cancel happened. It never cancels.
    fn find_cancel<'a>(
        &'a self,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>>;

    /// Asks what became of a refund. It never refunds.
    fn find_refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Option<Refunded>, GatewayError>>;
}
