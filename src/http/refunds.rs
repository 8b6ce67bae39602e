//! `/v1/payments/{id}/refunds` and `/v1/refunds`

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Data;

use super::request::{Caller, Keyed, PathId};
use super::{Services, reply};
use crate::payments::RefundRequest;
use crate::problem::Problem;

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
    let payments = services.payments.clone();
    let refund = async move {
        payments
            .refund(&merchant_id, key, &payment_id, &refund, wait)
            .await
    };
    reply::keyed(services.payments.engine().run(refund).await?)
}

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
    // One page: a payment has few refunds. The shape is the other list's.
    Ok(HttpResponse::Ok().json(serde_json::json!({"data": refunds, "nextCursor": null})))
}
