//! Giving money back, and asking what became of it.

use std::collections::HashMap;

use serde::Deserialize;

use super::StripeGateway;
use super::amount::wire_amount;
use super::api::Call;
use super::budget::Budget;
use super::decline::of_code;
use super::hold::unless_done;
use super::persist::Told;
use crate::gateway::{GatewayError, GatewayRefund, RefundProgress, Refunded};

/// Stripe's longest page.
const PAGE: &str = "100";

/// Far more refunds than a payment has: 1,000.
const MAX_PAGES: usize = 10;

/// See <https://docs.stripe.com/api/refunds/object>.
#[derive(Deserialize)]
struct Refund {
    id: String,
    status: Option<String>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

/// A page of refunds.
#[derive(Deserialize)]
struct Page {
    data: Vec<Refund>,
    #[serde(default)]
    has_more: bool,
}

impl Refund {
    /// One that is on its way is as good as made; Stripe says later where a bank would not have it.
    fn refunded(self) -> Result<Refunded, GatewayError> {
        match self.status.as_deref() {
            Some("failed" | "canceled") => Err(GatewayError::Declined(of_code("refund_failed"))),
            _ => Ok(Refunded {
                gateway_refund_id: self.id,
                progress: RefundProgress::Succeeded,
            }),
        }
    }

    fn is(&self, refund: &GatewayRefund) -> bool {
        self.metadata.get("refund_id") == Some(&refund.refund_id)
    }
}

impl StripeGateway {
    pub(super) async fn refund_within(
        &self,
        budget: Budget,
        refund: &GatewayRefund,
    ) -> Result<Refunded, GatewayError> {
        let amount = wire_amount(refund.amount)
            .map_err(GatewayError::Declined)?
            .to_string();
        let params = [
            ("payment_intent", refund.transaction_id.as_str()),
            ("amount", amount.as_str()),
            ("metadata[refund_id]", refund.refund_id.as_str()),
        ];
        let call = Call::post(&["refunds"], &refund.refund_id, &params);
        let ask = || self.find_refund_within(budget, refund);
        match self.make(budget, &call, ask).await? {
            Told::Answered(made) => Refund::refunded(made),
            Told::Found(refunded) => Ok(refunded),
            Told::Refused(decline) => unless_done(decline, ask().await),
        }
    }

    pub(super) async fn find_refund_within(
        &self,
        budget: Budget,
        refund: &GatewayRefund,
    ) -> Result<Option<Refunded>, GatewayError> {
        let mut after = None;
        for _ in 0..MAX_PAGES {
            let page = self.refunds(budget, refund, after.as_deref()).await?;
            after = page.data.last().map(|last| last.id.clone());
            if let Some(found) = page.data.into_iter().find(|listed| listed.is(refund)) {
                return found.refunded().map(Some);
            }
            if !page.has_more {
                return Ok(None);
            }
        }
        Err(GatewayError::Unknown {
            reason: format!("not among the payment's latest {MAX_PAGES} × {PAGE} refunds"),
        })
    }

    /// A page of the payment's refunds, newest first.
    async fn refunds(
        &self,
        budget: Budget,
        refund: &GatewayRefund,
        after: Option<&str>,
    ) -> Result<Page, GatewayError> {
        let mut params = vec![
            ("payment_intent", refund.transaction_id.as_str()),
            ("limit", PAGE),
        ];
        params.extend(after.map(|after| ("starting_after", after)));
        self.read(budget, &Call::get(&["refunds"], &params)).await
    }
}
