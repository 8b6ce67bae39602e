//! One payment.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::{Markup, html};

use super::super::error::ConsoleError;
use super::super::html::{self, Cell, amount, facts, foreign, or_dash, time};
use super::super::layout::{self, Tab};
use super::super::operator::Operator;
use super::super::{Console, keys, links};
use super::resource_query::ResourceQuery;
use super::store;
use super::timeline::Life;
use crate::idempotency::{IdempotencyError, IdempotencyKey, ScopedKey};
use crate::payments::{Operation, Payment, PaymentError, PaymentState};

/// Maximum number of refunds that are shown.
const REFUNDS_SHOWN: i64 = 200;

pub(in super::super) async fn payment_page(
    console: Data<Console>,
    operator: Operator,
    query: Query<ResourceQuery>,
) -> Result<HttpResponse, ConsoleError> {
    let (merchant, id) = query.into_inner().checked()?;
    let payments = console.payments().clone();
    let finding = async move { payments.find(&merchant, &id).await };
    let payment = match console.payments().engine().run(finding).await? {
        Ok(payment) => payment,
        Err(PaymentError::NotFound(_)) => return Err(ConsoleError::NotFound),
        Err(PaymentError::Engine(IdempotencyError::Database(error))) => return Err(error.into()),
        Err(error) => return Err(IdempotencyError::Work(error.into()).into()),
    };
    let life = console
        .ask(|console| async move { look_back(&console, payment).await })
        .await?;
    let body = html! {
        (record(&life.payment))
        (under_way(&console, &operator, &life))
        h2 { "History" }
        (life.timeline())
        (metadata_table(&life.payment))
    };
    let title = format!("Payment {}", life.payment.id);
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Payments),
        &title,
        &body,
    ))
}

async fn look_back(console: &Console, payment: Payment) -> sqlx::Result<Life> {
    let pool = console.pool();
    let (merchant, id) = (payment.merchant_id.as_str(), payment.id.as_str());
    let making = match IdempotencyKey::new(&payment.idempotency_key) {
        Ok(key) => {
            let scope = ScopedKey::new(merchant, Operation::CreatePayment.as_str(), key);
            store::find_making(pool, &scope, id).await?
        }
        Err(_) => None,
    };
    Ok(Life {
        making,
        at_work: store::list_at_work(pool, merchant, id).await?,
        refunds: store::list_refunds(pool, merchant, id, REFUNDS_SHOWN).await?,
        payment,
    })
}

fn record(payment: &Payment) -> Markup {
    let money = |minor: i64| amount(minor, payment.amount.currency().code());
    let card = payment.card.as_ref().map(|card| {
        format!(
            "{} ending in {}, {:02}/{}",
            card.brand, card.last4, card.expiry_month, card.expiry_year
        )
    });
    let customer = &payment.customer;
    facts(&[
        (
            "Merchant",
            links::merchant("/console/payments", &payment.merchant_id),
        ),
        ("State", html::state(payment.shown_state().as_str())),
        ("Amount", html! { (money(payment.amount.minor())) }),
        ("Captured", html! { (money(payment.captured.minor())) }),
        ("Refunded", html! { (money(payment.refunded.minor())) }),
        (
            "Refunds in progress",
            html! { (money(payment.refunding.minor())) },
        ),
        ("Card", html! { (or_dash(card)) }),
        (
            "Customer",
            html! {
                (foreign(customer.id.as_ref())) ", " (foreign(customer.name.as_ref())) ", " (foreign(customer.email.as_ref()))
            },
        ),
        ("Description", foreign(payment.description.as_ref())),
        ("Gateway", html! { (payment.gateway_type) }),
        (
            "Transaction",
            html! { code { (or_dash(payment.gateway_transaction_id.as_ref())) } },
        ),
        ("Created", time(payment.created_at)),
        ("Last changed", time(payment.updated_at)),
    ])
}

fn metadata_table(payment: &Payment) -> Markup {
    let rows = payment.metadata.iter().map(|(name, value)| {
        vec![
            Cell::row_name(foreign(Some(name))),
            Cell::text(foreign(Some(value))),
        ]
    });
    html::table("Metadata: the client's own notes", &["Name", "Value"], rows)
}

/// The work whose outcome is not known yet, each with the button that does not wait for recovery.
fn under_way(console: &Console, operator: &Operator, life: &Life) -> Markup {
    let payment = &life.payment;
    let making = (payment.state == PaymentState::Processing).then_some((
        Operation::CreatePayment.as_str(),
        payment.idempotency_key.as_str(),
    ));
    let changes = life.at_work.iter();
    let changes = changes.map(|work| (work.operation.as_str(), work.key.as_str()));
    let refunds = life.refunds.iter();
    let refunds = refunds
        .filter(|refund| refund.state == "PROCESSING")
        .map(|refund| {
            (
                Operation::RefundPayment.as_str(),
                refund.idempotency_key.as_str(),
            )
        });
    let all: Vec<(&str, &str)> = making.into_iter().chain(changes).chain(refunds).collect();
    html! {
        @if !all.is_empty() {
            h2 { "In progress" }
            p { "Recovery finishes abandoned work by itself; " em { "Resolve now" } " does not wait for it." }
            ul .works {
                @for (operation, key) in all {
                    li .card {
                        span { (operation) " by key " (links::key(&payment.merchant_id, operation, key)) }
                        (keys::resolve_button(console, operator, &payment.merchant_id, operation, key))
                    }
                }
            }
        }
    }
}
