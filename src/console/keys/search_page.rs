//! Lists of keys: by the beginning of their name, by state, or the newest.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::Console;
use super::super::error::ConsoleError;
use super::super::html::{self, Cell, or_dash, time};
use super::super::layout::{self, Tab};
use super::super::links::{self, href_of_given};
use super::super::operator::Operator;
use super::KeyView;
use super::store::{self, KeysNamed, NamedKeys, Newest, NewestKeys};
use crate::idempotency::IdempotencyKey;

/// Maximum number of rows a page.
const ROWS: usize = 50;

/// A key's states.
const STATES: [&str; 3] = [PROCESSING, "COMPLETED", "FAILED"];
const PROCESSING: &str = "PROCESSING";

#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct KeysQuery {
    merchant: String,
    key: String,
    state: String,
    /// The end of the previous page: when its last key expires, in microseconds since 1970, and the key.
    before: Option<i64>,
    before_merchant: String,
    before_operation: String,
    before_key: String,
}

impl KeysQuery {
    fn cleaned(self) -> Self {
        let clean = |text: String| text.trim().replace('\0', "\u{fffd}");
        Self {
            merchant: clean(self.merchant),
            key: clean(self.key),
            state: clean(self.state),
            before: self.before,
            before_merchant: clean(self.before_merchant),
            before_operation: clean(self.before_operation),
            before_key: clean(self.before_key),
        }
    }

    fn merchant(&self) -> Option<&str> {
        (!self.merchant.is_empty()).then_some(&self.merchant)
    }

    fn state(&self) -> Option<&str> {
        (!self.state.is_empty()).then_some(&self.state)
    }

    /// The key after which the list begins: the last of the previous page, or one that expires after all others.
    fn after(&self) -> Newest {
        let expires_at = self.before.and_then(DateTime::from_timestamp_micros);
        Newest {
            expires_at: expires_at.unwrap_or(AFTER_ALL),
            merchant_id: self.before_merchant.clone(),
            operation: self.before_operation.clone(),
            key: self.before_key.clone(),
        }
    }

    /// The same list from there on.
    fn going_on(&self, edge: &Newest) -> String {
        let all = [
            ("merchant", self.merchant.as_str()),
            ("state", &self.state),
            ("before", &edge.expires_at.timestamp_micros().to_string()),
            ("before_merchant", &edge.merchant_id),
            ("before_operation", &edge.operation),
            ("before_key", &edge.key),
        ];
        href_of_given("/console/keys", &all)
    }
}

/// Ten thousand years: PostgreSQL can represent it, and no key lives that long.
const AFTER_ALL: DateTime<Utc> = match DateTime::from_timestamp(253_402_300_800, 0) {
    Some(time) => time,
    None => DateTime::<Utc>::MAX_UTC,
};

/// The content of a page.
struct Found {
    keys: Vec<KeyView>,
    next: Option<String>,
    /// Why these are not all.
    notice: Option<String>,
}

impl From<Vec<KeyView>> for Found {
    fn from(keys: Vec<KeyView>) -> Self {
        Self {
            keys,
            next: None,
            notice: None,
        }
    }
}

impl From<NamedKeys> for Found {
    fn from(named: NamedKeys) -> Self {
        Self {
            notice: named.has_more.then(|| MORE_OF_THIS_NAME.to_owned()),
            ..Self::from(named.keys)
        }
    }
}

const MORE_OF_THIS_NAME: &str =
    "There are more keys with this prefix. A longer prefix or a merchant finds the others.";

pub(in super::super) async fn search_page(
    console: Data<Console>,
    operator: Operator,
    query: Query<KeysQuery>,
) -> Result<HttpResponse, ConsoleError> {
    let query = Arc::new(query.into_inner().cleaned());
    let searched = Arc::clone(&query);
    let found = console
        .ask(|console| async move { find(&console, &searched).await })
        .await?;
    let body = html! {
        (form(&query))
        (found_table(&query, &found.keys))
        @if let Some(notice) = &found.notice { p .help { (notice) } }
        @if let Some(next) = &found.next { p { a rel="next" href=(next) { "Older keys" } } }
        @if found.keys.is_empty() {
            p {
                "Nothing was found. Keys can be searched by their name or its beginning, by state, and by merchant. A key is \
                 forgotten after its time; what it made is still found by it among the "
                a href="/console/payments" { "payments" } "."
            }
        }
    };
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Keys),
        "Idempotency keys",
        &body,
    ))
}

/// A text that is not a valid key finds nothing.
async fn find(console: &Console, query: &KeysQuery) -> sqlx::Result<Found> {
    let (pool, merchant, state) = (console.pool(), query.merchant(), query.state());
    let rows = i64::try_from(ROWS).unwrap_or(i64::MAX);
    if !query.key.is_empty() {
        let Ok(key) = IdempotencyKey::new(&query.key) else {
            return Ok(Found::from(Vec::new()));
        };
        let named = KeysNamed {
            merchant_id: merchant,
            beginning: key.as_str(),
            state,
        };
        return store::find_keys(pool, named, ROWS).await.map(Found::from);
    }
    // These are few, and may be older than all keys that the list examines.
    if state == Some(PROCESSING) {
        let keys = store::list_unsettled(pool, merchant, None, rows).await?;
        return Ok(Found::from(keys));
    }
    let after = query.after();
    let newest = store::list_newest(pool, merchant, state, &after, rows.saturating_add(1)).await?;
    Ok(a_page(query, newest))
}

fn a_page(query: &KeysQuery, newest: NewestKeys) -> Found {
    let NewestKeys { mut keys, edge } = newest;
    let is_full = keys.len() > ROWS;
    keys.truncate(ROWS);
    let last = keys.last().filter(|_| is_full).map(|key| Newest {
        expires_at: key.expires_at,
        merchant_id: key.merchant_id.clone(),
        operation: key.operation.clone(),
        key: key.key.clone(),
    });
    let older_remain = || {
        let most = store::LOOKED_AT;
        format!("Only {most} keys are searched for one page. Older ones were not searched yet.")
    };
    Found {
        notice: (!is_full && edge.is_some()).then(older_remain),
        next: last.or(edge).map(|edge| query.going_on(&edge)),
        keys,
    }
}

fn form(query: &KeysQuery) -> Markup {
    html! {
        form .card.search method="get" action="/console/keys" role="search" {
            (html::field("key", "Key, or its beginning", &query.key, 255, ""))
            (html::choice("state", "State", &query.state, STATES.into_iter()))
            (html::field("merchant", "Merchant (any, if empty)", &query.merchant, 64, ""))
            div { button type="submit" { "Search" } }
        }
    }
}

fn found_table(query: &KeysQuery, found: &[KeyView]) -> Markup {
    let rows = found.iter().map(|key| {
        vec![
            Cell::row_name(links::key(&key.merchant_id, &key.operation, &key.key)),
            Cell::text(html::state(&key.state)),
            Cell::text(links::merchant("/console/keys", &key.merchant_id)),
            Cell::text(&key.operation),
            Cell::number(key.attempt),
            Cell::number(or_dash(
                key.response_status.map(|status| status.to_string()),
            )),
            Cell::text(match &key.resource_id {
                Some(id) => links::resource(&key.merchant_id, id),
                None => html! { "–" },
            }),
            Cell::text(time(key.created_at)),
        ]
    });
    let titles = [
        "Key",
        "State",
        "Merchant",
        "Operation",
        "Attempts",
        "Status",
        "Made or changes",
        "First used",
    ];
    let caption = match (query.key.is_empty(), query.state.as_str()) {
        (false, _) => "Keys with this prefix",
        (true, PROCESSING) => "Keys in PROCESSING, oldest first",
        (true, _) => "Keys, newest first",
    };
    html::table(caption, &titles, rows)
}
