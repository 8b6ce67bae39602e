//! A payment's intents, by a consistent read: the list of all intents of that time. The search is an index that lags behind, by
//! minutes and in an outage by hours, and is never asked.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::StripeGateway;
use super::api::Call;
use super::budget::Budget;
use super::intent::{Intent, ListedIntent};
use super::text;
use crate::gateway::{Charge, GatewayError};

/// Stripe's longest page.
pub(super) const PAGE: &str = "100";

/// How much the database's clock, which dates the claim, may be ahead of Stripe's, which dates the intent.
const CLOCK_MARGIN: TimeDelta = TimeDelta::minutes(10);

/// Nearly all intents are made this soon after their claim. The rest of the window may be long on a busy account, and is read only
/// where none with money was found here.
const SOON: TimeDelta = TimeDelta::hours(1);

/// A page of a list, newest first.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
}

impl StripeGateway {
    /// All intents of a payment, each as it is now.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Unknown`] where the list was not read to its end.
    pub(super) async fn intents_of(
        &self,
        budget: Budget,
        charge: &Charge,
    ) -> Result<Vec<Intent>, GatewayError> {
        let mut intents: Vec<Intent> = Vec::new();
        for (from, to) in windows(charge.claimed_at, Utc::now()) {
            for id in self.ids_within(budget, charge, from, to).await? {
                let account = charge.account.as_deref();
                intents.push(self.retrieve(budget, account, &id).await?);
            }
            if intents.iter().any(Intent::is_charged) {
                break;
            }
        }
        Ok(intents)
    }

    /// The ids of the payment's intents that were created in a window of time, in Unix seconds, both ends included.
    async fn ids_within(
        &self,
        budget: Budget,
        charge: &Charge,
        from: i64,
        to: Option<i64>,
    ) -> Result<Vec<String>, GatewayError> {
        let (from, to) = (from.to_string(), to.map(|to| to.to_string()));
        let mut params = vec![("created[gte]", from.as_str()), ("limit", PAGE)];
        params.extend(to.as_deref().map(|to| ("created[lte]", to)));
        let customer = charge.gateway_customer_id.as_deref();
        params.extend(customer.map(|customer| ("customer", customer)));
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let page: Page<ListedIntent> = self
                .page(
                    budget,
                    charge.account.as_deref(),
                    "payment_intents",
                    &params,
                    after.as_deref(),
                )
                .await?;
            after = page.data.last().map(|last| last.id.clone());
            let of_payment = page
                .data
                .into_iter()
                .filter(|i| i.is_of(&charge.payment_id));
            ids.extend(of_payment.map(|intent| intent.id));
            if !page.has_more || after.is_none() {
                break;
            }
        }
        match ids.iter().all(|id| text::is_id(id, "pi_")) {
            true => Ok(ids),
            false => Err(GatewayError::Unknown {
                reason: "Stripe lists an intent by an id that is none".to_owned(),
            }),
        }
    }

    /// A page of a list, newest first.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        budget: Budget,
        account: Option<&str>,
        objects: &str,
        params: &[(&str, &str)],
        after: Option<&str>,
    ) -> Result<Page<T>, GatewayError> {
        let mut params = params.to_vec();
        params.extend(after.map(|after| ("starting_after", after)));
        let path = [objects];
        self.read(budget, &Call::get(&path, &params).on(account))
            .await
    }
}

/// From before the first call can have been made until now, in Unix seconds; `None`: without an end.
fn windows(claimed_at: DateTime<Utc>, now: DateTime<Utc>) -> Vec<(i64, Option<i64>)> {
    let from = (claimed_at - CLOCK_MARGIN).timestamp();
    let soon = claimed_at + SOON;
    if soon >= now {
        return vec![(from, None)];
    }
    let soon = soon.timestamp();
    vec![(from, Some(soon)), (soon + 1, None)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_windows_reach_from_before_the_claim_until_now_without_a_gap() {
        let now = DateTime::from_timestamp(1_000_000, 0).expect("a time");
        let young = windows(now - TimeDelta::minutes(5), now);
        assert_eq!(young, [(1_000_000 - 15 * 60, None)]);
        let old = windows(now - TimeDelta::hours(21), now);
        let claimed = 1_000_000 - 21 * 3600;
        let soon = claimed + 3600;
        assert_eq!(old, [(claimed - 600, Some(soon)), (soon + 1, None)]);
    }
}
