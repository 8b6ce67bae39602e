//! Refunding, and asking for the result of a refund.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::StripeGateway;
use super::amount::{wire_amount, wire_currency};
use super::api::Call;
use super::budget::Budget;
use super::decline::of_code;
use super::hold::unless_done;
use super::intent::differing;
use super::page::{PAGE_SIZE, Page};
use super::persist::Told;
use super::text;
use crate::gateway::{GatewayError, GatewayRefund, RefundProgress, Refunded};

/// Maximum number of pages of refunds. Together they have 1,000 refunds, far more than a payment has.
const MAX_PAGES: usize = 10;

/// See <https://docs.stripe.com/api/refunds/object>.
#[derive(Deserialize)]
struct Refund {
    id: String,
    status: Option<String>,
    amount: i64,
    currency: String,
    payment_intent: Option<Value>,
    metadata: Option<HashMap<String, String>>,
}

impl Refund {
    /// Its result, if it matches the request.
    fn refunded(self, asked: &GatewayRefund) -> Result<Refunded, GatewayError> {
        self.is_as_asked(asked)?;
        let progress = match self.status.as_deref() {
            Some("failed" | "canceled") => {
                return Err(GatewayError::Declined(of_code("refund_failed")));
            }
            Some("succeeded") => RefundProgress::Succeeded,
            Some("pending" | "requires_action") => RefundProgress::Pending,
            _ => {
                return Err(GatewayError::Unknown {
                    reason: "Stripe has a refund without a known status".to_owned(),
                });
            }
        };
        Ok(Refunded {
            gateway_refund_id: self.id,
            progress,
        })
    }

    fn is_as_asked(&self, asked: &GatewayRefund) -> Result<(), GatewayError> {
        let of_intent = self.payment_intent.as_ref().and_then(Value::as_str);
        let is_refund = text::is_id(&self.id, "re_") || text::is_id(&self.id, "pyr_");
        let differs = if !is_refund {
            "id"
        } else if self.amount != wire_amount(asked.amount)? {
            "amount"
        } else if self.currency != wire_currency(asked.amount) {
            "currency"
        } else if of_intent != Some(&asked.transaction_id) {
            "payment intent"
        } else {
            return Ok(());
        };
        let (refund, amount) = (&asked.refund_id, self.amount);
        tracing::error!(
            refund,
            amount,
            "Stripe answered with another {differs} than requested"
        );
        Err(differing(differs))
    }

    fn is(&self, refund: &GatewayRefund) -> bool {
        let id = self.metadata.as_ref().and_then(|m| m.get("refund_id"));
        id.is_some_and(|id| *id == refund.refund_id)
    }
}

impl StripeGateway {
    pub(super) async fn refund_within(
        &self,
        budget: Budget,
        refund: &GatewayRefund,
    ) -> Result<Refunded, GatewayError> {
        let amount = wire_amount(refund.amount)?.to_string();
        let params = [
            ("payment_intent", refund.transaction_id.as_str()),
            ("amount", amount.as_str()),
            ("metadata[refund_id]", refund.refund_id.as_str()),
            ("metadata[payment_id]", refund.payment_id.as_str()),
            ("metadata[merchant_id]", refund.merchant_id.as_str()),
        ];
        let call =
            Call::post(&["refunds"], &refund.refund_id, &params).on(refund.account.as_deref());
        let ask = || self.find_refund_within(budget, refund);
        match self
            .make(budget, &call, &refund.refund_id, |_| ask())
            .await?
        {
            Told::Answered(made) => Refund::refunded(made, refund),
            Told::Found(refunded) => Ok(refunded),
            Told::Declined(no) => unless_done(GatewayError::Declined(no.decline), ask().await),
            Told::Refused(refusal) => unless_done(GatewayError::Refused(refusal), ask().await),
        }
    }

    /// The list of a payment's refunds is a consistent read.
    pub(super) async fn find_refund_within(
        &self,
        budget: Budget,
        refund: &GatewayRefund,
    ) -> Result<Option<Refunded>, GatewayError> {
        let params = [
            ("payment_intent", refund.transaction_id.as_str()),
            ("limit", PAGE_SIZE),
        ];
        let account = refund.account.as_deref();
        let mut after = None;
        for _ in 0..MAX_PAGES {
            let page: Page<Refund> = self
                .page(budget, account, "refunds", &params, after.as_deref())
                .await?;
            after = page.data.last().map(|last| last.id.clone());
            if let Some(found) = page.data.into_iter().find(|listed| listed.is(refund)) {
                return found.refunded(refund).map(Some);
            }
            if !page.has_more {
                return Ok(None);
            }
        }
        Err(GatewayError::Unknown {
            reason: format!("not among the payment's latest {MAX_PAGES} × {PAGE_SIZE} refunds"),
        })
    }
}
