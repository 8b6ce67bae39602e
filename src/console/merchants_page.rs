//! The list of merchants, with links to their payments and keys.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::{Markup, html};
use serde::Deserialize;

use super::Console;
use super::error::ConsoleError;
use super::html::{self, Cell, time};
use super::layout::{self, Tab};
use super::links::{self, href, href_of_given};
use super::operator::Operator;
use super::store::{self, MerchantListed};

/// Maximum number of rows a page.
const ROWS: usize = 50;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    id: String,
    after: String,
}

pub(super) async fn page(
    console: Data<Console>,
    operator: Operator,
    asked: Query<Asked>,
) -> Result<HttpResponse, ConsoleError> {
    let clean = |text: &str| text.trim().replace('\0', "\u{fffd}");
    let (id, after) = (clean(&asked.id), clean(&asked.after));
    let limit = i64::try_from(ROWS).unwrap_or(i64::MAX).saturating_add(1);
    let beginning = id.clone();
    let mut merchants = console
        .ask(|console| async move {
            store::list_merchants(console.pool(), &beginning, &after, limit).await
        })
        .await?;
    let has_more = merchants.len() > ROWS;
    merchants.truncate(ROWS);
    let last = merchants.last().filter(|_| has_more);
    let body = html! {
        form .card.search method="get" action="/console/merchants" role="search" {
            (html::field("id", "Merchant's id, or its beginning", &id, 64, ""))
            div { button type="submit" { "Search" } }
        }
        (merchants_table(&merchants))
        @if let Some(last) = last {
            @let named = [("id", id.as_str()), ("after", &last.merchant_id)];
            p { a rel="next" href=(href_of_given("/console/merchants", &named)) { "Further merchants" } }
        }
    };
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Merchants),
        "Merchants",
        &body,
    ))
}

fn merchants_table(merchants: &[MerchantListed]) -> Markup {
    let rows = merchants.iter().map(|merchant| {
        let id = merchant.merchant_id.as_str();
        let newest = merchant.newest_payment.as_ref();
        let of = |path: &str| href(path, &[("merchant", id)]);
        vec![
            Cell::row_name(html! { code { (id) } }),
            Cell::text(html::foreign(Some(&merchant.name))),
            Cell::text(html! {
                a href=(of("/console/payments")) { "payments" } ", "
                a href=(of("/console/declines")) { "declines" } ", "
                a href=(of("/console/keys")) { "keys" } ", "
                a href=(of("/console/stuck")) { "stuck work" }
            }),
            Cell::text(match newest {
                Some(payment) => links::resource(id, &payment.payment_id),
                None => html! { "–" },
            }),
            Cell::text(html::time_or_dash(newest.map(|payment| payment.created_at))),
            Cell::text(time(merchant.created_at)),
        ]
    });
    let titles = [
        "Merchant",
        "Name",
        "Show",
        "Newest payment",
        "Made",
        "Merchant since",
    ];
    html::table("Merchants by id", &titles, rows)
}
