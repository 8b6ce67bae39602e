//! The ledger: what happened to the money.

use std::collections::{BTreeMap, HashMap};

use super::call::Endpoint;
use super::intent::{Intent, Refund, Status};

/// A snapshot of the gateway's books. Lists are in the order in which things happened; amounts are in minor units.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Every charge that a card's issuer agreed to. A payment that was charged twice is here twice.
    pub charges: Vec<ChargeEntry>,
    /// Intents that never had money behind them: declined, or waiting for 3-D Secure.
    pub unpaid: Vec<UnpaidEntry>,
    /// Explicit captures. An automatic charge has none.
    pub captures: Vec<CaptureEntry>,
    /// Cancels, also of intents without money.
    pub cancels: Vec<CancelEntry>,
    /// Refunds. A refund that was made twice is here twice.
    pub refunds: Vec<RefundEntry>,
    /// Cards turned into tokens.
    pub tokenizations: usize,
    /// How often each endpoint was called; none where it never was.
    pub calls: BTreeMap<Endpoint, Calls>,
    /// Faults that befell requests, by name: `error_before`, `drop_after`, …
    pub faults: BTreeMap<&'static str, usize>,
}

/// How often an endpoint was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Requests that arrived with a valid API key, with any outcome.
    pub received: usize,
    /// Requests that were carried out; also those that ended in a decline or another error of execution.
    pub executed: usize,
    /// Requests that found the stored answer of an earlier one under their key.
    pub replayed: usize,
}

/// The state of a charge's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeStatus {
    /// Set aside on the card.
    Held,
    /// Captured, wholly or in part; the rest was released.
    Captured,
    /// Released.
    Canceled,
}

/// A charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeEntry {
    /// `metadata[payment_id]`; empty when there was none.
    pub payment_id: String,
    /// `pi_…`
    pub intent_id: String,
    pub amount: i64,
    /// Lower case.
    pub currency: String,
    pub status: ChargeStatus,
    pub amount_captured: i64,
    pub amount_refunded: i64,
}

/// An intent without money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpaidEntry {
    pub payment_id: String,
    pub intent_id: String,
    pub amount: i64,
    /// In Stripe's words: `requires_payment_method` after a decline, `requires_action`, or `canceled`.
    pub status: &'static str,
    /// Why the card was refused, if it was: the decline code, or the code where there is none.
    pub decline: Option<&'static str>,
}

/// A capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureEntry {
    pub payment_id: String,
    pub intent_id: String,
    pub amount: i64,
}

/// A cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelEntry {
    pub payment_id: String,
    pub intent_id: String,
}

/// A refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundEntry {
    /// `metadata[refund_id]`; empty when there was none.
    pub refund_id: String,
    /// `re_…`
    pub gateway_refund_id: String,
    pub payment_id: String,
    pub intent_id: String,
    pub amount: i64,
    /// `pending`, `succeeded` or `failed`.
    pub status: &'static str,
}

impl Intent {
    pub(super) fn charge_entry(&self) -> Option<ChargeEntry> {
        let status = match self.status {
            _ if !self.authorized => return None,
            Status::RequiresCapture => ChargeStatus::Held,
            Status::Succeeded => ChargeStatus::Captured,
            Status::Canceled => ChargeStatus::Canceled,
            Status::RequiresPaymentMethod | Status::RequiresAction => return None,
        };
        Some(ChargeEntry {
            payment_id: self.payment_id(),
            intent_id: self.id.clone(),
            amount: self.amount,
            currency: self.currency.clone(),
            status,
            amount_captured: self.captured,
            amount_refunded: self.refunded,
        })
    }

    pub(super) fn unpaid_entry(&self) -> Option<UnpaidEntry> {
        (!self.authorized).then(|| UnpaidEntry {
            payment_id: self.payment_id(),
            intent_id: self.id.clone(),
            amount: self.amount,
            status: self.status.name(),
            decline: self
                .decline
                .map(|decline| decline.decline_code.unwrap_or(decline.code)),
        })
    }
}

impl RefundEntry {
    pub(super) fn new(refund: &Refund, payment_id: &str) -> Self {
        Self {
            refund_id: refund
                .metadata
                .get("refund_id")
                .cloned()
                .unwrap_or_default(),
            gateway_refund_id: refund.id.clone(),
            payment_id: payment_id.to_owned(),
            intent_id: refund.intent_id.clone(),
            amount: refund.amount,
            status: refund.status.name(),
        }
    }
}

impl Ledger {
    /// All charges of a payment; there must never be more than one.
    pub fn charges_for(&self, payment_id: &str) -> Vec<&ChargeEntry> {
        self.charges
            .iter()
            .filter(|charge| charge.payment_id == payment_id)
            .collect()
    }

    /// The one charge of a payment. Panics when there is none, or a second one.
    pub fn only_charge(&self, payment_id: &str) -> &ChargeEntry {
        match self.charges_for(payment_id)[..] {
            [charge] => charge,
            ref charges => panic!(
                "{payment_id} has {} charges, not one: {charges:#?}",
                charges.len()
            ),
        }
    }

    /// All captures of a payment.
    pub fn captures_for(&self, payment_id: &str) -> Vec<&CaptureEntry> {
        self.captures
            .iter()
            .filter(|capture| capture.payment_id == payment_id)
            .collect()
    }

    /// All cancels of a payment.
    pub fn cancels_for(&self, payment_id: &str) -> Vec<&CancelEntry> {
        self.cancels
            .iter()
            .filter(|cancel| cancel.payment_id == payment_id)
            .collect()
    }

    /// All intents of a payment that never had money behind them.
    pub fn unpaid_for(&self, payment_id: &str) -> Vec<&UnpaidEntry> {
        self.unpaid
            .iter()
            .filter(|intent| intent.payment_id == payment_id)
            .collect()
    }

    /// All refunds with this id of payonce's; there must never be more than one.
    pub fn refunds_by_id(&self, refund_id: &str) -> Vec<&RefundEntry> {
        self.refunds
            .iter()
            .filter(|refund| refund.refund_id == refund_id)
            .collect()
    }

    /// The intents of a payment that somebody could still confirm, and be charged by: none may be left.
    pub fn open_for(&self, payment_id: &str) -> Vec<&UnpaidEntry> {
        let mut open = self.unpaid_for(payment_id);
        open.retain(|intent| intent.status != "canceled");
        open
    }

    /// All refunds of a payment.
    pub fn refunds_for(&self, payment_id: &str) -> Vec<&RefundEntry> {
        self.refunds
            .iter()
            .filter(|refund| refund.payment_id == payment_id)
            .collect()
    }

    /// How often an endpoint was called.
    pub fn calls(&self, endpoint: Endpoint) -> Calls {
        self.calls.get(&endpoint).copied().unwrap_or_default()
    }

    /// Panics when any payment was charged, captured or canceled twice, any refund was made twice, or an amount exceeded its bound.
    /// Charges and refunds without an id of payonce's are not counted.
    pub fn assert_nothing_twice(&self) {
        let ids = |ids: Vec<&str>| {
            let mut counts: HashMap<String, usize> = HashMap::new();
            ids.into_iter()
                .filter(|id| !id.is_empty())
                .for_each(|id| *counts.entry(id.into()).or_default() += 1);
            counts.retain(|_, count| *count > 1);
            counts
        };
        let twice = [
            (
                "charged",
                ids(self.charges.iter().map(|c| c.payment_id.as_str()).collect()),
            ),
            (
                "captured",
                ids(self
                    .captures
                    .iter()
                    .map(|c| c.payment_id.as_str())
                    .collect()),
            ),
            (
                "canceled",
                // A payment may have had several intents that were given up.
                ids(self.cancels.iter().map(|c| c.intent_id.as_str()).collect()),
            ),
            (
                "refunded",
                ids(self.refunds.iter().map(|r| r.refund_id.as_str()).collect()),
            ),
        ];
        for (what, ids) in twice {
            assert!(ids.is_empty(), "{what} more than once: {ids:?}");
        }
        // Added up from the entries, so that a wrong total in the books is found too.
        let mut refunded_of: HashMap<&str, i64> = HashMap::new();
        for refund in self
            .refunds
            .iter()
            .filter(|refund| refund.status != "failed")
        {
            *refunded_of.entry(&refund.intent_id).or_default() += refund.amount;
        }
        for charge in &self.charges {
            let refunded = refunded_of.get(charge.intent_id.as_str());
            let refunded = refunded.copied().unwrap_or_default();
            assert_eq!(
                refunded, charge.amount_refunded,
                "the refunds do not add up: {charge:?}"
            );
            assert!(
                charge.amount_captured <= charge.amount,
                "captured more than was held: {charge:?}"
            );
            assert!(
                refunded <= charge.amount_captured,
                "refunded more than was captured: {charge:?}"
            );
        }
    }
}
