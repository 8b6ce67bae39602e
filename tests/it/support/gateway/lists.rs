//! Lists and the search: intents and refunds, newest first.

use std::time::Duration;

use serde_json::{Value, json};

use super::books::Books;
use super::call::{CreatedFilter, Page};
use super::intent::Refund;
use super::reply::ApiError;

impl Books {
    pub(super) fn list_intents(
        &self,
        filter: &CreatedFilter,
        customer: Option<&str>,
        page: &Page,
        expand: &[String],
    ) -> Result<Value, ApiError> {
        let newest_first = self.intents.iter().rev().filter(|intent| {
            filter.admits(intent.created)
                && customer.is_none_or(|id| intent.customer.as_deref() == Some(id))
        });
        listed(
            "/v1/payment_intents",
            newest_first,
            page,
            |intent| &intent.id,
            |intent| intent.json(expand),
        )
    }

    pub(super) fn search(
        &self,
        name: &str,
        value: &str,
        limit: usize,
        expand: &[String],
        lag: Duration,
    ) -> Value {
        let mut found = self.intents.iter().rev().filter(|intent| {
            intent.born.elapsed() >= lag && intent.metadata.get(name).is_some_and(|v| v == value)
        });
        let data: Vec<Value> = found
            .by_ref()
            .take(limit)
            .map(|intent| intent.json(expand))
            .collect();
        json!({
            "object": "search_result",
            "url": "/v1/payment_intents/search",
            "data": data,
            "has_more": found.next().is_some(),
            "next_page": null,
        })
    }

    pub(super) fn list_refunds(
        &self,
        intent: Option<&str>,
        filter: &CreatedFilter,
        page: &Page,
    ) -> Result<Value, ApiError> {
        if let Some(id) = intent.filter(|id| !self.intents.iter().rev().any(|i| i.id == *id)) {
            return Err(ApiError::missing_reference(
                "payment_intent",
                "payment_intent",
                id,
            ));
        }
        let newest_first = self.refunds.iter().rev().filter(|refund| {
            filter.admits(refund.created) && intent.is_none_or(|id| refund.intent_id == id)
        });
        listed(
            "/v1/refunds",
            newest_first,
            page,
            |refund| &refund.id,
            Refund::json,
        )
    }
}

/// A page of a list.
fn listed<'a, T: 'a>(
    url: &str,
    mut newest_first: impl Iterator<Item = &'a T>,
    page: &Page,
    id: impl Fn(&T) -> &str,
    json: impl Fn(&T) -> Value,
) -> Result<Value, ApiError> {
    if let Some(cursor) = &page.starting_after {
        let found = newest_first.by_ref().find(|listed| id(listed) == cursor);
        found.ok_or_else(|| ApiError::missing_reference("starting_after", "object", cursor))?;
    }
    let data: Vec<Value> = newest_first.by_ref().take(page.limit).map(json).collect();
    Ok(json!({
        "object": "list",
        "url": url,
        "data": data,
        "has_more": newest_first.next().is_some(),
    }))
}
