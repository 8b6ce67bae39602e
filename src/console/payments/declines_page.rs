//! Declines of the last 24 hours by their reason.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use chrono::{SecondsFormat, TimeDelta};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::Console;
use super::super::error::ConsoleError;
use super::super::html::{self, Cell};
use super::super::layout::{self, Tab};
use super::super::links::{href, href_of_given};
use super::super::operator::Operator;
use super::store::{self, Declines, END_OF_IDS, Ids};
use super::times;

/// The time span of the declines.
const SPAN: TimeDelta = TimeDelta::hours(24);

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(in super::super) struct DeclinesQuery {
    merchant: String,
    before: String,
}

pub(in super::super) async fn declines_page(
    console: Data<Console>,
    operator: Operator,
    query: Query<DeclinesQuery>,
) -> Result<HttpResponse, ConsoleError> {
    let clean = |text: &str| text.trim().replace('\0', "\u{fffd}");
    let (merchant, before) = (clean(&query.merchant), clean(&query.before));
    let from = operator.asked_at - SPAN;
    let (of, now) = (merchant.clone(), operator.asked_at);
    let ids = Ids {
        kind: "pay",
        from: times::first_id_at("pay", from),
        before: match before.is_empty() {
            true => format!("pay_{END_OF_IDS}"),
            false => before,
        },
    };
    let declines = console
        .ask(|console| async move {
            let of = (!of.is_empty()).then_some(of.as_str());
            store::list_declines(console.pool(), of, ids, now).await
        })
        .await?;
    let since = from.to_rfc3339_opts(SecondsFormat::Secs, true);
    let body = html! {
        form .card.search method="get" action="/console/declines" role="search" {
            (html::field("merchant", "Merchant (any, if empty)", &merchant, 64, ""))
            div { button type="submit" { "Show" } }
        }
        (reasons_table(&declines, &merchant, &since))
        (how_far(&declines, &merchant))
    };
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Declines),
        "Declines by reason",
        &body,
    ))
}

fn reasons_table(declines: &Declines, merchant: &str, since: &str) -> Markup {
    let all: i64 = declines.reasons.iter().map(|reason| reason.declines).sum();
    let rows = declines.reasons.iter().map(|reason| {
        let named = [
            ("merchant", merchant),
            ("state", "FAILED"),
            ("decline", &reason.code),
            ("from", since),
        ];
        let share = reason.declines.saturating_mul(1000) / all.max(1);
        vec![
            Cell::row_name(html! { a href=(href_of_given("/console/payments", &named)) { code { (reason.code) } } }),
            Cell::number(reason.declines),
            Cell::number(format!("{}.{} %", share / 10, share % 10)),
            Cell::number(reason.merchants),
            Cell::text(html::time(reason.latest_at)),
            Cell::text(html::foreign(Some(&reason.message))),
        ]
    });
    let titles = [
        "Reason",
        "Declines",
        "Of all declines",
        "Merchants",
        "Latest",
        "Latest message",
    ];
    html::table("Declined payments of the last 24 hours", &titles, rows)
}

/// The number of these payments, and a link to the next ones if these are not all.
fn how_far(declines: &Declines, merchant: &str) -> Markup {
    let all: i64 = declines.reasons.iter().map(|reason| reason.declines).sum();
    let reaches_to = declines.next.as_deref().and_then(times::made_at);
    html! {
        p .help {
            (all) " of " (declines.looked_at) " payments were declined"
            @match reaches_to {
                Some(time) => { ", back to " (html::time(time)) ". Older ones were not searched yet." }
                None => { " in the last 24 hours." }
            }
        }
        @if let Some(next) = &declines.next {
            @let named = [("merchant", merchant), ("before", next.as_str())];
            p { a rel="next" href=(href("/console/declines", &named)) { "Older declines" } }
        }
    }
}
