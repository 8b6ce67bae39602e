//! `/v1/payments`

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::Data;
use utoipa::IntoParams;

use super::card_intake::CardIntake;
use super::query::Parameters;
use super::reply::PageView;
use super::request::{AskingCaller, Caller, Keyed, PathId};
use super::services::Services;
use super::{reply, request_shapes};
use crate::idempotency::IdempotencyKey;
use crate::payments::{
    CancelRequest, CaptureRequest, NewPayment, Page, Payment, PaymentFilter, PaymentState,
};
use crate::problem::Problem;

/// Charge a card once, or hold the amount
#[utoipa::path(
    post, path = "/v1/payments", operation_id = "create_payment", tag = "payments", security(("apiKey" = [])),
    request_body(content = request_shapes::NewPayment, description = "At most 64 KiB. An unknown field is an error"),
    responses(
        (status = 201, description = "Charged, or held with `captureMethod` `MANUAL`", body = Payment),
        (status = 202, description = "The gateway's answer is not known yet: send the same request again", body = Payment),
    ),
)]
pub(super) async fn create(
    services: Data<Services>,
    request: Keyed,
) -> Result<HttpResponse, Problem> {
    let Keyed {
        merchant_id,
        key,
        wait,
        body,
    } = request;
    let payment = NewPayment::parse(&body)?;
    if services.card_intake == CardIntake::Off {
        payment.refuse_card()?;
    }
    let create = services.payments.create(&merchant_id, key, payment, wait);
    reply::keyed(create.await)
}

/// Capture a held payment, in full or in part
///
/// The rest of the hold is released.
#[utoipa::path(
    post, path = "/v1/payments/{id}/capture", operation_id = "capture_payment", tag = "payments",
    security(("apiKey" = [])),
    params(("id" = String, Path, example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11", description = "The payment")),
    request_body(content = Option<request_shapes::CapturePayment>, description = "The amount; all of the hold if absent"),
    responses(
        (status = 200, description = "Captured", body = Payment),
        (status = 202, description = "The gateway's answer is not known yet: send the same request again", body = Payment),
    ),
)]
pub(super) async fn capture(
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
    let capture = CaptureRequest::parse(&body)?;
    let capture = services
        .payments
        .capture(&merchant_id, key, &payment_id, capture, wait);
    reply::keyed(capture.await)
}

/// Cancel a held payment
#[utoipa::path(
    post, path = "/v1/payments/{id}/cancel", operation_id = "cancel_payment", tag = "payments",
    security(("apiKey" = [])),
    params(("id" = String, Path, example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11", description = "The payment")),
    request_body(content = Option<request_shapes::CancelPayment>, description = "Nothing, or `{}`"),
    responses(
        (status = 200, description = "Canceled", body = Payment),
        (status = 202, description = "The gateway's answer is not known yet: send the same request again", body = Payment),
    ),
)]
pub(super) async fn cancel(
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
    let cancel = CancelRequest::parse(&body)?;
    let cancel = services
        .payments
        .cancel(&merchant_id, key, &payment_id, cancel, wait);
    reply::keyed(cancel.await)
}

/// Read a payment
#[utoipa::path(
    get, path = "/v1/payments/{id}", operation_id = "get_payment", tag = "payments", security(("apiKey" = [])),
    params(("id" = String, Path, example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11", description = "The payment")),
    responses((status = 200, description = "The payment in its present state", body = Payment)),
)]
pub(super) async fn get(
    services: Data<Services>,
    PathId(payment_id): PathId,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let payments = services.payments.clone();
    let Caller { merchant_id } = caller;
    let id = Arc::clone(&merchant_id);
    let find = async move { payments.find(&id, &payment_id).await };
    let payment = services.read(&merchant_id, find).await??;
    Ok(HttpResponse::Ok().json(payment))
}

/// The query parameters of a list, as text. Every mistake is reported with the parameter's name.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(super) struct ListQuery {
    /// Maximum number of payments on a page.
    #[param(value_type = Option<u16>, nullable = false, minimum = 1, maximum = 100, default = 20, example = 20)]
    limit: Option<String>,
    /// The `nextCursor` of an earlier page.
    #[param(
        nullable = false,
        max_length = 64,
        pattern = "^pay_[!-~]*$",
        example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11"
    )]
    cursor: Option<String>,
    /// Only payments in this state.
    #[param(value_type = PaymentState, required = false, example = "SUCCESS")]
    state: Option<String>,
    /// Only payments of this customer, by the client's own id.
    #[param(nullable = false, example = "customer-7")]
    customer_id: Option<String>,
    /// Only the payment that this key made, even if the key itself has expired.
    #[param(
        nullable = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$",
        example = "order-1001"
    )]
    idempotency_key: Option<String>,
}

const DEFAULT_LIMIT: u16 = 20;
const MAX_LIMIT: u16 = 100;

impl ListQuery {
    fn read(parameters: &mut Parameters) -> Self {
        Self {
            limit: parameters.take("limit"),
            cursor: parameters.take("cursor"),
            state: parameters.take("state"),
            customer_id: parameters.take("customerId"),
            idempotency_key: parameters.take("idempotencyKey"),
        }
    }

    /// Records mistakes in `parameters`. A wrong parameter counts as absent.
    fn check(self, parameters: &mut Parameters) -> (PaymentFilter, u16) {
        let limit = self.limit.map_or(Some(DEFAULT_LIMIT), |limit| {
            let limit = limit.parse().ok();
            limit.filter(|limit| (1..=MAX_LIMIT).contains(limit))
        });
        if limit.is_none() {
            let message = format!("must be a whole number from 1 to {MAX_LIMIT}");
            parameters.reject("limit", message);
        }
        let state = self.state.as_deref().map(PaymentState::from_name);
        if state == Some(None) {
            let names: Vec<&str> = PaymentState::ALL
                .iter()
                .map(|state| state.as_str())
                .collect();
            parameters.reject("state", format!("must be one of {}", names.join(", ")));
        }
        if self
            .cursor
            .as_deref()
            .is_some_and(|cursor| !is_cursor(cursor))
        {
            parameters.reject("cursor", "must be the nextCursor of an earlier page");
        }
        if self
            .customer_id
            .as_deref()
            .is_some_and(|id| id.contains('\0'))
        {
            parameters.reject("customerId", "must not contain a NUL character");
        }
        let key = self.idempotency_key;
        if key
            .as_deref()
            .is_some_and(|key| IdempotencyKey::new(key).is_err())
        {
            parameters.reject(
                "idempotencyKey",
                "must be 1 to 255 visible ASCII characters",
            );
        }
        let filter = PaymentFilter {
            before: self.cursor,
            state: state.flatten(),
            customer_id: self.customer_id,
            idempotency_key: key,
        };
        (filter, limit.unwrap_or(DEFAULT_LIMIT))
    }
}

fn is_cursor(text: &str) -> bool {
    text.len() <= 64 && text.starts_with("pay_") && text.bytes().all(|b| b.is_ascii_graphic())
}

/// List payments, newest first
///
/// With `state`, a page examines at most 500 payments and shows those of them in that state: it may have fewer than `limit`, or
/// none, and still have a `nextCursor`. Continue until `nextCursor` is null.
#[utoipa::path(
    get, path = "/v1/payments", operation_id = "list_payments", tag = "payments", security(("apiKey" = [])),
    params(ListQuery),
    responses((status = 200, description = "A page of payments", body = PageView<Payment>)),
)]
pub(super) async fn list(
    services: Data<Services>,
    caller: AskingCaller,
) -> Result<HttpResponse, Problem> {
    let AskingCaller {
        merchant_id,
        mut parameters,
    } = caller;
    let (filter, limit) = ListQuery::read(&mut parameters).check(&mut parameters);
    parameters.finish()?;
    let payments = services.payments.clone();
    let id = Arc::clone(&merchant_id);
    let list = async move { payments.list(&id, &filter, limit).await };
    let Page {
        payments,
        next_cursor,
    } = services.read(&merchant_id, list).await??;
    Ok(HttpResponse::Ok().json(PageView {
        data: payments,
        next_cursor,
    }))
}
