//! Pages of Stripe's lists.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::StripeGateway;
use super::api::Call;
use super::budget::Budget;
use crate::gateway::GatewayError;

/// The maximum that Stripe allows.
pub(super) const PAGE_SIZE: &str = "100";

/// A page of a list, newest first.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
}

impl StripeGateway {
    /// Reads the page of a list that follows the object `after`, or the first page.
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
