//! The search for payments.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::error::ConsoleError;
use super::super::layout::{self, Tab, href};
use super::super::session::Operator;
use super::super::{Console, keys};
use super::store::{self, Filter, Found};
use super::timeline::amount;
use super::{Listed, payment_href};
use crate::payments::{Operation, PaymentState};

/// So many rows a page.
const ROWS: usize = 25;

/// A key can have made one payment a merchant, and one refund.
const MOST_OF_ONE_KEY: i64 = 100;

#[derive(Default, Deserialize)]
#[serde(default)]
pub(in super::super) struct Asked {
    id: String,
    merchant: String,
    key: String,
    state: String,
    before: String,
}

impl Asked {
    /// Without the spaces that come with copying. A text with a NUL is in no column of PostgreSQL's.
    fn cleaned(self) -> Self {
        let clean = |text: String| text.trim().replace('\0', "\u{fffd}");
        Self {
            id: clean(self.id),
            merchant: clean(self.merchant),
            key: clean(self.key),
            state: clean(self.state),
            before: clean(self.before),
        }
    }

    /// The same search from there on.
    fn from(&self, next: &str) -> String {
        let all = [
            ("merchant", self.merchant.as_str()),
            ("state", &self.state),
            ("before", next),
        ];
        let given: Vec<(&str, &str)> = all
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        href("/console/payments", &given)
    }
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

pub(in super::super) async fn search_page(
    console: Data<Console>,
    operator: Operator,
    asked: Query<Asked>,
) -> Result<HttpResponse, ConsoleError> {
    let asked = std::sync::Arc::new(asked.into_inner().cleaned());
    let searched = std::sync::Arc::clone(&asked);
    let found = console
        .ask(|console| async move { search(&console, &searched).await })
        .await?;
    let body = html! {
        (form(&asked))
        (listed_table(&found.payments))
        @if found.was_cut_short {
            p .help { "Only so many payments are looked at for one page. Older ones were not looked at yet." }
        }
        @if let Some(next) = &found.next {
            p { a rel="next" href=(asked.from(next)) { "Older payments" } }
        }
    };
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Payments),
        "Payments",
        &body,
    ))
}

/// By what names one payment, where that is given; otherwise a list. What else is given must hold, too.
async fn search(console: &Console, asked: &Asked) -> sqlx::Result<Found> {
    let (pool, merchant) = (console.pool(), given(&asked.merchant));
    let named = match (given(&asked.id), given(&asked.key)) {
        (Some(id), _) => store::find_by_id(pool, merchant, id).await?,
        (None, Some(key)) => store::find_by_key(pool, merchant, key, MOST_OF_ONE_KEY).await?,
        (None, None) => {
            let filter = Filter {
                merchant_id: merchant.map(str::to_owned),
                state: given(&asked.state).map(str::to_owned),
                before: given(&asked.before).map(str::to_owned),
            };
            return store::list_payments(pool, &filter, ROWS).await;
        }
    };
    let holds = |payment: &Listed| {
        given(&asked.state).is_none_or(|state| payment.shown_state() == state)
            && given(&asked.key)
                .is_none_or(|key| asked.id.is_empty() || payment.idempotency_key == key)
    };
    Ok(Found {
        payments: named.into_iter().filter(holds).collect(),
        next: None,
        was_cut_short: false,
    })
}

fn form(asked: &Asked) -> Markup {
    let field = |id: &str, name: &str, value: &str, longest: u16| {
        html! {
            div {
                label for=(id) { (name) }
                input id=(id) name=(id) value=(value) maxlength=(longest) autocomplete="off" spellcheck="false";
            }
        }
    };
    html! {
        form .card.search method="get" action="/console/payments" role="search" {
            (field("id", "Payment id", &asked.id, 64))
            (field("merchant", "Merchant", &asked.merchant, 64))
            (field("key", "Idempotency key", &asked.key, 255))
            div {
                label for="state" { "State" }
                select #state name="state" {
                    option value="" { "any" }
                    @for state in PaymentState::ALL {
                        option value=(state.as_str()) selected[asked.state == state.as_str()] { (state.as_str()) }
                    }
                }
            }
            div { button type="submit" { "Search" } }
        }
    }
}

fn listed_table(payments: &[Listed]) -> Markup {
    let rows = payments.iter().map(|payment| {
        let (merchant, key) = (&payment.merchant_id, &payment.idempotency_key);
        html! {
            tr {
                th scope="row" { a href=(payment_href(merchant, &payment.payment_id)) { code { (payment.payment_id) } } }
                td { (layout::state(payment.shown_state())) }
                td .number { (amount(payment.amount_minor, &payment.currency)) }
                td { (merchant) }
                td { a href=(keys::key_href(merchant, Operation::CreatePayment.as_str(), key)) { code { (key) } } }
                td { (layout::time(payment.created_at)) }
            }
        }
    });
    let titles = ["Payment", "State", "Amount", "Merchant", "Key", "Created"];
    layout::table("Payments, newest first", &titles, rows)
}
