//! One payment.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::Console;
use super::super::error::ConsoleError;
use super::super::layout::{self, Tab, facts, or_dash, time};
use super::super::session::Operator;
use super::store;
use super::timeline::{Life, amount};
use crate::idempotency::{IdempotencyError, IdempotencyKey, ScopedKey};
use crate::payments::{Operation, Payment, PaymentError};

/// So many refunds are shown.
const REFUNDS_SHOWN: i64 = 200;

#[derive(Deserialize)]
pub(in super::super) struct Asked {
    merchant: String,
    id: String,
}

pub(in super::super) async fn payment_page(
    console: Data<Console>,
    operator: Operator,
    asked: Query<Asked>,
) -> Result<HttpResponse, ConsoleError> {
    let Asked { merchant, id } = asked.into_inner();
    if merchant.contains('\0') || id.contains('\0') {
        return Err(ConsoleError::NotFound);
    }
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
        h2 { "Its life" }
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
        ("Merchant", html! { (payment.merchant_id) }),
        ("State", layout::state(payment.shown_state().as_str())),
        ("Amount", html! { (money(payment.amount.minor())) }),
        ("Captured", html! { (money(payment.captured_minor)) }),
        ("Refunded", html! { (money(payment.refunded_minor)) }),
        (
            "Refunds under way",
            html! { (money(payment.refunding_minor)) },
        ),
        ("Card", html! { (or_dash(card)) }),
        (
            "Customer",
            html! {
                (or_dash(customer.id.as_ref())) ", " (or_dash(customer.name.as_ref())) ", " (or_dash(customer.email.as_ref()))
            },
        ),
        (
            "Description",
            html! { (or_dash(payment.description.as_ref())) },
        ),
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
        html! { tr { th scope="row" { (name) } td { (value) } } }
    });
    layout::table("Metadata: the client's own notes", &["Name", "Value"], rows)
}
