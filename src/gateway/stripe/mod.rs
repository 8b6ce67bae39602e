//! Stripe, or a stand-in with the same API, over HTTP.
//!
//! Each call carries the pinned version of the API and an idempotency key of its own (the payment's id, the refund's, that of one
//! attempt to capture or cancel), so that Stripe carries it out once, however often it is repeated; see
//! <https://docs.stripe.com/api/idempotent_requests>. What an answer, or its absence, means is decided in [`verdict`]; how
//! often and how long Stripe is asked, in [`persist`].
//!
//! Stripe stores a 5xx under a key like any other outcome, so a key may have no other answer. The result of each call can therefore
//! also be asked for by a consistent read: the intent by its id, or the list of the intents of that time ([`list`]), whose
//! [`search`] continues from one attempt to the next. `contract/contract.json` has the published types of the calls that are made
//! here; the tests' gateway refuses everything else.

mod amount;
mod api;
mod budget;
mod charge;
mod decline;
mod hold;
mod intent;
mod list;
mod page;
mod persist;
mod probe;
mod refund;
mod search;
mod text;
mod tokenize;
mod verdict;

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};

use self::api::Api;
pub use self::api::StripeSetupError;
use self::budget::Budget;
pub use self::probe::StripeProbe;
use self::search::Searches;
use super::{
    Cancel, Capture, Charge, Charged, Gateway, GatewayError, GatewayRefund, GatewayToken, Refunded,
};
use crate::cards::{Card, CardSummary};

/// The gateway of Stripe, as the module describes it.
pub struct StripeGateway {
    api: Api,
    request_time: Duration,
    /// Whether real money moves, by the form of the key. `None` if the form does not say.
    livemode: Option<bool>,
    searches: Searches,
}

impl StripeGateway {
    /// A gateway whose every call, with all its retries, ends a little before `request_time` is over. Connections are kept.
    ///
    /// # Errors
    ///
    /// The base is not an `http` or `https` URL, the key does not fit into a header, or there are no root certificates.
    pub fn new(
        api_base: &str,
        secret_key: SecretString,
        request_time: Duration,
    ) -> Result<Self, StripeSetupError> {
        Ok(Self {
            api: Api::new(api_base, &secret_key, request_time)?,
            request_time,
            livemode: livemode_of(secret_key.expose_secret()),
            searches: Searches::new(),
        })
    }

    /// Creates the budget of a call that begins now.
    fn budget(&self) -> Budget {
        Budget::new(self.request_time)
    }
}

/// `sk_live_…` and `rk_live_…` move real money, `sk_test_…` and `rk_test_…` none.
fn livemode_of(secret_key: &str) -> Option<bool> {
    let (_, rest) = secret_key.split_once("k_")?;
    match rest.split_once('_')? {
        ("live", _) => Some(true),
        ("test", _) => Some(false),
        _ => None,
    }
}

impl fmt::Debug for StripeGateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripeGateway")
            .field("request_time", &self.request_time)
            .finish_non_exhaustive()
    }
}

impl Gateway for StripeGateway {
    fn kind(&self) -> &'static str {
        "STRIPE"
    }

    fn tokenizes_remotely(&self) -> bool {
        true
    }

    fn has_accounts(&self) -> bool {
        true
    }

    fn tokenize<'a>(
        &'a self,
        card: &'a Card,
        account: Option<&'a str>,
    ) -> BoxFuture<'a, Result<GatewayToken, GatewayError>> {
        async move { self.tokenize_within(self.budget(), card, account).await }.boxed()
    }

    fn describe_token(&self, _: &GatewayToken) -> Option<CardSummary> {
        None
    }

    fn charge<'a>(&'a self, charge: &'a Charge) -> BoxFuture<'a, Result<Charged, GatewayError>> {
        async move { self.charge_within(self.budget(), charge).await }.boxed()
    }

    fn capture<'a>(&'a self, capture: &'a Capture) -> BoxFuture<'a, Result<(), GatewayError>> {
        async move { self.capture_within(self.budget(), capture).await }.boxed()
    }

    fn cancel<'a>(&'a self, cancel: &'a Cancel) -> BoxFuture<'a, Result<(), GatewayError>> {
        async move { self.cancel_within(self.budget(), cancel).await }.boxed()
    }

    fn refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Refunded, GatewayError>> {
        async move { self.refund_within(self.budget(), refund).await }.boxed()
    }

    fn find_charge<'a>(
        &'a self,
        charge: &'a Charge,
    ) -> BoxFuture<'a, Result<Option<Charged>, GatewayError>> {
        async move { self.find_charge_within(self.budget(), charge).await }.boxed()
    }

    fn find_capture<'a>(
        &'a self,
        capture: &'a Capture,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        async move { self.find_capture_within(self.budget(), capture).await }.boxed()
    }

    fn find_cancel<'a>(
        &'a self,
        cancel: &'a Cancel,
    ) -> BoxFuture<'a, Result<Option<()>, GatewayError>> {
        async move { self.find_cancel_within(self.budget(), cancel).await }.boxed()
    }

    fn find_refund<'a>(
        &'a self,
        refund: &'a GatewayRefund,
    ) -> BoxFuture<'a, Result<Option<Refunded>, GatewayError>> {
        async move { self.find_refund_within(self.budget(), refund).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whether_money_moves() {
        let rows = [
            ("sk_live_1", Some(true)),
            ("rk_live_1", Some(true)),
            ("sk_test_1", Some(false)),
            ("rk_test_1", Some(false)),
            ("sk_other_1", None),
            ("secret", None),
        ];
        for (key, livemode) in rows {
            assert_eq!(livemode_of(key), livemode, "{key}");
        }
    }
}
