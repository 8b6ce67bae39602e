//! `/v1/payments/{id}/refunds` and `/v1/refunds`

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Data;

use super::reply;
use super::reply::PageView;
use super::request::{Caller, Keyed, PathId};
use super::request_shapes::RefundPayment;
use super::services::Services;
use crate::payments::{Refund, RefundRequest};
use crate::problem::Problem;

/// Refund a payment, in full or in part
///
/// The refunds of a payment never exceed what was captured.
#[utoipa::path(
    post, path = "/v1/payments/{id}/refunds", operation_id = "refund_payment", tag = "refunds",
    security(("apiKey" = [])),
    params(("id" = String, Path, example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11", description = "The payment")),
    request_body(content = Option<RefundPayment>, description = "The amount and the reason; without an amount, all that is left"),
    responses(
        (status = 201, description = "Given back", body = Refund),
        (status = 202, description = "The gateway's answer is not known yet: send the same request again", body = Refund),
    ),
)]
pub(super) async fn create(
    services: Data<Services>,
    PathId(payment_id): PathId,
    request: Keyed,
) -> Result<HttpResponse, Problem> {
    let Keyed {
        merchant_id,
        key,
        wait,
        body,
    } = request;
    let refund = RefundRequest::parse(&body)?;
    let refund = services
        .payments
        .refund(&merchant_id, key, &payment_id, refund, wait);
    reply::keyed(refund.await)
}

/// Read a refund
#[utoipa::path(
    get, path = "/v1/refunds/{id}", operation_id = "get_refund", tag = "refunds", security(("apiKey" = [])),
    params(("id" = String, Path, example = "ref_01936d32-11aa-7b0c-8e55-2d1f4c6b7a90", description = "The refund")),
    responses((status = 200, description = "The refund in its present state", body = Refund)),
)]
pub(super) async fn get(
    services: Data<Services>,
    PathId(refund_id): PathId,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let payments = services.payments.clone();
    let Caller { merchant_id } = caller;
    let id = Arc::clone(&merchant_id);
    let find = async move { payments.find_refund(&id, &refund_id).await };
    let refund = services.read(&merchant_id, find).await??;
    Ok(HttpResponse::Ok().json(refund))
}

/// List a payment's refunds
#[utoipa::path(
    get, path = "/v1/payments/{id}/refunds", operation_id = "list_refunds", tag = "refunds", security(("apiKey" = [])),
    params(("id" = String, Path, example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11", description = "The payment")),
    responses((status = 200, description = "All of them, newest first", body = PageView<Refund>)),
)]
pub(super) async fn list(
    services: Data<Services>,
    PathId(payment_id): PathId,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let payments = services.payments.clone();
    let Caller { merchant_id } = caller;
    let id = Arc::clone(&merchant_id);
    let list = async move { payments.list_refunds(&id, &payment_id).await };
    let refunds = services.read(&merchant_id, list).await??;
    // There is only one page, because a payment has few refunds. The shape is that of the other list.
    Ok(HttpResponse::Ok().json(PageView {
        data: refunds,
        next_cursor: None,
    }))
}
