//! The settle of a create: the key's answer, and the payment's outcome.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::gateway::{Charged, Decline};
use crate::idempotency::grouped::{Grouped, Settler};
use crate::idempotency::{Answer, Claim, Engine, IdempotencyError, Outcome};
use crate::payments::group_commit::SettleItem;
use crate::payments::sanitize::Sanitize;
use crate::payments::settle::{is_content_rejected, log_rejected_content};
use crate::payments::store::RowLocations;
use crate::payments::transitions::{self, now};
use crate::payments::{Payment, Payments};

/// Settles the key of a payment and saves the payment, in one statement.
pub(super) struct CreateSettle<'a> {
    payments: &'a Payments,
    pub(super) payment: Arc<Payment>,
    outcome: Arc<Outcome>,
    claimed: &'a Payment,
    result: Result<Charged, Decline>,
    locations: Option<RowLocations>,
    at: DateTime<Utc>,
}

impl<'a> CreateSettle<'a> {
    pub(super) fn new(
        payments: &'a Payments,
        claimed: &'a Payment,
        result: Result<Charged, Decline>,
        locations: Option<RowLocations>,
    ) -> Self {
        let at = now();
        let mut payment = claimed.clone();
        let outcome = transitions::charged(&mut payment, result.clone(), at);
        Self {
            payments,
            payment: Arc::new(payment),
            outcome: Arc::new(outcome),
            claimed,
            result,
            locations,
            at,
        }
    }

    /// The same settle without the gateway's text.
    fn without_text(&self, claim: &Claim) -> SettleItem {
        let mut payment = self.claimed.clone();
        let outcome =
            transitions::charged(&mut payment, self.result.clone().without_text(), self.at);
        SettleItem {
            attempt: claim.attempt,
            payment: Arc::new(payment),
            outcome: Arc::new(outcome),
            locations: self.locations,
        }
    }

    async fn write(
        &self,
        claim: &Claim,
        item: SettleItem,
    ) -> Result<Option<Answer>, IdempotencyError> {
        match self.payments.settles().submit(item).await? {
            Grouped::Written(_, None) => Ok(None),
            Grouped::Written(SettleItem { outcome, .. }, Some(())) => Ok(Some(Answer {
                response: Arc::new(outcome.response().clone()),
                replayed: false,
                expires_at: claim.expires_at,
            })),
            Grouped::Failed(_, error) | Grouped::NotSent(_, error) => {
                Err(IdempotencyError::Shared(error))
            }
        }
    }
}

impl Settler for CreateSettle<'_> {
    async fn try_settle(
        &self,
        _: &Engine,
        claim: &Claim,
    ) -> Result<Option<Answer>, IdempotencyError> {
        let item = SettleItem {
            attempt: claim.attempt,
            payment: Arc::clone(&self.payment),
            outcome: Arc::clone(&self.outcome),
            locations: self.locations,
        };
        match self.write(claim, item).await {
            Err(error) if is_content_rejected(&error) => {
                log_rejected_content(&self.payment.id, &error);
                Box::pin(self.write(claim, self.without_text(claim))).await
            }
            settled => settled,
        }
    }
}
