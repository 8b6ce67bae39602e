//! One refund.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use maud::html;

use super::super::error::ConsoleError;
use super::super::html::{self, facts, foreign, or_dash, time};
use super::super::layout::{self, Tab};
use super::super::operator::Operator;
use super::super::{Console, keys, links};
use super::resource_query::ResourceQuery;
use super::store;
use crate::payments::Operation;

pub(in super::super) async fn refund_page(
    console: Data<Console>,
    operator: Operator,
    query: Query<ResourceQuery>,
) -> Result<HttpResponse, ConsoleError> {
    let (merchant, id) = query.into_inner().checked()?;
    let of = merchant.clone();
    let found = console
        .ask(|console| async move { store::find_refund(console.pool(), &of, &id).await })
        .await?;
    let (payment_id, currency, refund) = found.ok_or(ConsoleError::NotFound)?;
    let operation = Operation::RefundPayment.as_str();
    let body = html! {
        (facts(&[
            ("Merchant", links::merchant("/console/payments", &merchant)),
            ("State", html::state(&refund.state)),
            ("Amount", html! { (html::amount(refund.amount_minor, &currency)) }),
            ("Payment", links::resource(&merchant, &payment_id)),
            ("Key", links::key(&merchant, operation, &refund.idempotency_key)),
            ("Reason", foreign(refund.reason.as_ref())),
            ("At the gateway", html! { code { (or_dash(refund.gateway_refund_id.as_ref())) } }),
            ("Failed because", html! {
                (foreign(refund.failure_message.as_ref()))
                @if let Some(code) = &refund.failure_code { " (" code { (code) } ")" }
            }),
            ("Created", time(refund.created_at)),
            ("Last changed", time(refund.updated_at)),
        ]))
        @if refund.state == "PROCESSING" {
            (keys::resolve_button(&console, &operator, &merchant, operation, &refund.idempotency_key))
        }
    };
    let title = format!("Refund {}", refund.refund_id);
    Ok(layout::page(
        &console,
        &operator,
        Some(Tab::Payments),
        &title,
        &body,
    ))
}
