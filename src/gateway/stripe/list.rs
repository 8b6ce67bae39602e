//! A payment's intents, by a consistent read: the list of all intents of that time. Stripe's search is never used, because its
//! index lags behind by minutes, and by hours during an outage.

use chrono::{DateTime, TimeDelta, Utc};

use super::StripeGateway;
use super::budget::Budget;
use super::intent::{Intent, ListedIntent};
use super::page::{PAGE_SIZE, Page};
use super::search::{Name, Question, Search, Window};
use crate::gateway::{Charge, GatewayError};

/// How much the database's clock, which dates the claim, may be ahead of Stripe's, which dates the intent.
const CLOCK_MARGIN: TimeDelta = TimeDelta::minutes(10);

/// Clocks nearly always differ by less than this. Older intents are read last.
const CLOCK_DIFFERENCE: TimeDelta = TimeDelta::seconds(30);

/// Nearly all intents are made this soon after their claim. The rest of the time until now may be long on a busy account, and is
/// read only if no intent with money was found here.
const SOON: TimeDelta = TimeDelta::hours(1);

impl StripeGateway {
    /// Reads all intents of a payment in their present state. Pages that were read for the same question before are not read again.
    ///
    /// # Errors
    ///
    /// [`GatewayError::Unknown`] if the list was not read to its end.
    pub(super) async fn intents_of(
        &self,
        budget: Budget,
        charge: &Charge,
        question: Question,
    ) -> Result<Vec<Intent>, GatewayError> {
        let name = Name::new(charge, question);
        let begin = || windows(charge.claimed_at, Utc::now());
        let mut search = self.searches.begun_or(&name, begin);
        loop {
            let intents = match search.is_between_windows() {
                true => self.retrieve_all(budget, charge, search.ids()).await?,
                false => Vec::new(),
            };
            let is_charged = intents.iter().any(Intent::is_charged);
            let Some((window, after)) = search.next().filter(|_| !is_charged) else {
                self.searches.end(&name, &search);
                return Ok(intents);
            };
            let page = self.page_of(budget, charge, window, after).await;
            let page = page.map_err(|error| unfinished(&search, &error))?;
            search.note(page, &charge.payment_id)?;
            self.searches.keep(&name, &search);
        }
    }

    async fn retrieve_all(
        &self,
        budget: Budget,
        charge: &Charge,
        ids: &[String],
    ) -> Result<Vec<Intent>, GatewayError> {
        let mut intents = Vec::new();
        for id in ids {
            let account = charge.account.as_deref();
            intents.push(self.retrieve(budget, account, id).await?);
        }
        Ok(intents)
    }

    /// A page of the intents that were created in a window of time.
    async fn page_of(
        &self,
        budget: Budget,
        charge: &Charge,
        (from, to): Window,
        after: Option<&str>,
    ) -> Result<Page<ListedIntent>, GatewayError> {
        let (from, to) = (from.to_string(), to.map(|to| to.to_string()));
        let mut params = vec![("created[gte]", from.as_str()), ("limit", PAGE_SIZE)];
        params.extend(to.as_deref().map(|to| ("created[lte]", to)));
        let customer = charge.gateway_customer_id.as_deref();
        params.extend(customer.map(|customer| ("customer", customer)));
        let account = charge.account.as_deref();
        self.page(budget, account, "payment_intents", &params, after)
            .await
    }
}

/// The windows of time to read, the likeliest first. Together they reach from before the first possible call until now.
fn windows(claimed_at: DateTime<Utc>, now: DateTime<Utc>) -> Vec<Window> {
    let seconds = |time: DateTime<Utc>| time.timestamp();
    let (first, likely) = (claimed_at - CLOCK_MARGIN, claimed_at - CLOCK_DIFFERENCE);
    let before = (seconds(first), Some(seconds(likely) - 1));
    let soon = claimed_at + SOON;
    if soon >= now {
        return vec![(seconds(likely), None), before];
    }
    vec![
        (seconds(likely), Some(seconds(soon))),
        (seconds(soon) + 1, None),
        before,
    ]
}

/// The error for a page that could not be read. It says how far the search has come.
fn unfinished(search: &Search, error: &GatewayError) -> GatewayError {
    GatewayError::Unknown {
        reason: format!(
            "{} pages of intents were read so far: {error}",
            search.pages()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_windows_reach_from_before_the_claim_until_now_without_a_gap() {
        let now = DateTime::from_timestamp(1_000_000, 0).expect("a time");
        let young = windows(now - TimeDelta::minutes(5), now);
        let claimed = 1_000_000 - 5 * 60;
        let before = (claimed - 600, Some(claimed - 31));
        assert_eq!(young, [(claimed - 30, None), before]);
        let old = windows(now - TimeDelta::hours(21), now);
        let claimed = 1_000_000 - 21 * 3600;
        let (soon, before) = (claimed + 3600, (claimed - 600, Some(claimed - 31)));
        assert_eq!(old, [(claimed - 30, Some(soon)), (soon + 1, None), before]);
    }
}
