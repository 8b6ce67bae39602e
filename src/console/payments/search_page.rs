//! The search for payments.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Query};
use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::super::Console;
use super::super::error::ConsoleError;
use super::super::html::{self, Cell};
use super::super::layout::{self, Tab};
use super::super::links;
use super::super::operator::Operator;
use super::Listed;
use super::search_query::{Id, SearchQuery};
use super::store::{self, Filter, Found, Named, RefundListed, RefundsQuery};
use super::times;
use crate::payments::{Operation, PaymentState};

/// Maximum number of rows a page.
const ROWS: usize = 25;

/// Maximum number of refunds. A key can have made one payment and one refund per merchant.
const MOST_OF_ONE_NAME: u16 = 100;

pub(in super::super) async fn search_page(
    console: Data<Console>,
    operator: Operator,
    query: Query<SearchQuery>,
) -> Result<HttpResponse, ConsoleError> {
    let query = Arc::new(query.into_inner().cleaned());
    let (filter, refunds) = match (query.filter(), query.refunds()) {
        (Ok(filter), Ok(refunds)) => (filter, refunds),
        (Err(complaint), _) | (_, Err(complaint)) => {
            let body = html! {
                p .notice.bad role="alert" { (complaint) }
                (form(&query))
            };
            return Ok(show(StatusCode::BAD_REQUEST, &console, &operator, &body));
        }
    };
    let (searched, now) = (Arc::clone(&query), operator.asked_at);
    let (found, refunds) = console
        .ask(|console| async move { search(&console, &searched, filter, refunds, now).await })
        .await?;
    let body = html! {
        (form(&query))
        @if !refunds.is_empty() { (refunds_table(&refunds)) }
        (payments_table(&found.payments))
        (going_on(&query, &found))
        @if found.payments.is_empty() && refunds.is_empty() { (what_can_be_searched()) }
    };
    Ok(show(StatusCode::OK, &console, &operator, &body))
}

fn show(status: StatusCode, console: &Console, operator: &Operator, body: &Markup) -> HttpResponse {
    let tab = Some(Tab::Payments);
    layout::page_of_status(status, console, operator, tab, "Payments", body)
}

/// A key or a refund's id names payments, so only these are considered. All other fields must match, too.
async fn search(
    console: &Console,
    query: &SearchQuery,
    mut filter: Filter,
    refunds: Option<RefundsQuery>,
    now: DateTime<Utc>,
) -> sqlx::Result<(Found, Vec<RefundListed>)> {
    let (pool, merchant) = (console.pool(), query.merchant());
    let mut refunds = match &refunds {
        Some(refunds) => {
            let most = usize::from(MOST_OF_ONE_NAME);
            store::search_refunds(pool, merchant, refunds, most, now).await?
        }
        None => Vec::new(),
    };
    if matches!(query.id(), Some(Id::Refund(_))) || !refunds.is_empty() {
        let of_refunds = refunds.iter().map(|refund| Named {
            merchant_id: refund.merchant_id.clone(),
            payment_id: refund.payment_id.clone(),
        });
        filter.named = Some(of_refunds.collect());
        filter.transaction = None;
        // The time in the query is the refund's.
        "pay_".clone_into(&mut filter.ids.from);
    }
    if let Some(key) = query.key() {
        let most = i64::from(MOST_OF_ONE_NAME);
        let of_key = store::find_payments_of_key(pool, merchant, key, most).await?;
        filter.named = Some(match filter.named {
            Some(mut named) => {
                named.retain(|payment| of_key.contains(payment));
                named
            }
            None => of_key,
        });
    }
    let found = store::search_payments(pool, &filter, ROWS, now).await?;
    let has_payment = |refund: &RefundListed| {
        let mut payments = found.payments.iter();
        payments.any(|payment| payment.payment_id == refund.payment_id)
    };
    refunds.retain(has_payment);
    Ok((found, refunds))
}

/// The link to the next page, and how far the search has looked.
fn going_on(query: &SearchQuery, found: &Found) -> Markup {
    let Some(next) = &found.next else {
        return html! {};
    };
    let looked_back_to = times::made_at(next).filter(|_| found.was_cut_short);
    html! {
        @if found.was_cut_short {
            p .help {
                "The number of payments searched for one page is limited"
                @if let Some(time) = looked_back_to { ", this time back to " (html::time(time)) }
                ". Older ones were not searched yet."
            }
        }
        p { a rel="next" href=(query.going_on(next)) { "Older payments" } }
    }
}

fn what_can_be_searched() -> Markup {
    html! {
        div .card.searchable {
            p { "Nothing was found. Payments can be searched by" }
            ul {
                li { "the id of a payment (" code { "pay_…" } "), of a refund (" code { "ref_…" } ") or of a transaction or refund at the gateway, whole or its beginning;" }
                li { "the idempotency key that made the payment or a refund of it, whole (its beginning: " a href="/console/keys" { "Keys" } ");" }
                li { "the time at which it was made, in UTC: a day, a minute or a second;" }
                li { "the amount, in one currency or in any;" }
                li { "the customer's id, or the email address;" }
                li { "the card's last four digits, the decline's code, the state, the merchant." }
            }
            p { "All that is filled in must hold. A merchant is written as its id: see " a href="/console/merchants" { "Merchants" } "." }
        }
    }
}

fn form(query: &SearchQuery) -> Markup {
    let states = PaymentState::ALL.iter().map(|state| state.as_str());
    html! {
        form .card.search method="get" action="/console/payments" role="search" {
            (html::field("id", "Id, or its beginning", &query.id, 255, "pay_…, ref_…, at the gateway"))
            (html::field("merchant", "Merchant", &query.merchant, 64, ""))
            (html::field("key", "Idempotency key", &query.key, 255, ""))
            (html::choice("state", "State", &query.state, states))
            details .more open[query.has_details()] {
                summary { "Time, amount, customer, card, decline" }
                div .fields {
                    (html::field("from", "From (UTC)", &query.from, 40, "2026-11-26 11:15"))
                    (html::field("to", "To (UTC)", &query.to, 40, "2026-11-26 11:30"))
                    (html::field("amount", "Amount", &query.amount, 32, "1234.50"))
                    (html::field("currency", "Currency", &query.currency, 3, "USD"))
                    (html::field("customer", "Customer's id or email", &query.customer, 255, ""))
                    (html::field("last4", "Card's last four", &query.last4, 4, "4242"))
                    (html::field("decline", "Decline code", &query.decline, 64, "insufficient_funds"))
                }
            }
            div { button type="submit" { "Search" } }
        }
    }
}

fn payments_table(payments: &[Listed]) -> Markup {
    let rows = payments.iter().map(|payment| {
        let (merchant, key) = (&payment.merchant_id, &payment.idempotency_key);
        vec![
            Cell::row_name(links::resource(merchant, &payment.payment_id)),
            Cell::text(payment.state_cell()),
            Cell::number(payment.amount_cell()),
            Cell::text(links::merchant("/console/payments", merchant)),
            Cell::text(links::key(merchant, Operation::CreatePayment.as_str(), key)),
            Cell::text(html::time(payment.created_at)),
        ]
    });
    let titles = ["Payment", "State", "Amount", "Merchant", "Key", "Created"];
    html::table("Payments, newest first", &titles, rows)
}

fn refunds_table(refunds: &[RefundListed]) -> Markup {
    let rows = refunds.iter().map(|refund| {
        let merchant = &refund.merchant_id;
        vec![
            Cell::row_name(links::resource(merchant, &refund.refund_id)),
            Cell::text(html! {
                (html::state(&refund.state))
                @if let Some(code) = &refund.failure_code { p .aside { code { (code) } } }
            }),
            Cell::number(html::amount(refund.amount_minor, &refund.currency)),
            Cell::text(links::merchant("/console/payments", merchant)),
            Cell::text(links::resource(merchant, &refund.payment_id)),
            Cell::text(html::time(refund.created_at)),
        ]
    });
    let titles = [
        "Refund", "State", "Amount", "Merchant", "Payment", "Created",
    ];
    html::table("Refunds, newest first", &titles, rows)
}
