//! `/v1/payments`

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use serde::Deserialize;
use utoipa::IntoParams;

use super::openapi::requests;
use super::reply::PageView;
use super::request::{Caller, Keyed, PathId};
use super::{Services, reply};
use crate::config::CardIntake;
use crate::input::FieldError;
use crate::payments::{
    CancelRequest, CaptureRequest, NewPayment, Page, Payment, PaymentError, PaymentFilter,
    PaymentState,
};
use crate::problem::Problem;

/// Charge a card once, or hold its money
#[utoipa::path(
    post, path = "/v1/payments", operation_id = "create_payment", tag = "payments", security(("apiKey" = [])),
    request_body(content = requests::NewPayment, description = "At most 64 KiB. A field that is not known is an error"),
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

/// Take what is held, or a part of it
///
/// What is not taken is let go.
#[utoipa::path(
    post, path = "/v1/payments/{id}/capture", operation_id = "capture_payment", tag = "payments",
    security(("apiKey" = [])),
    params(("id" = String, Path, example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11", description = "The payment")),
    request_body(content = Option<requests::CapturePayment>, description = "How much; all that is held where absent"),
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
    let payments = services.payments.clone();
    let capture = async move {
        payments
            .capture(&merchant_id, key, &payment_id, &capture, wait)
            .await
    };
    reply::keyed(services.payments.engine().run(capture).await?)
}

/// Let go of what is held
#[utoipa::path(
    post, path = "/v1/payments/{id}/cancel", operation_id = "cancel_payment", tag = "payments",
    security(("apiKey" = [])),
    params(("id" = String, Path, example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11", description = "The payment")),
    request_body(content = Option<requests::CancelPayment>, description = "Nothing, or `{}`"),
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
    let payments = services.payments.clone();
    let cancel = async move {
        payments
            .cancel(&merchant_id, key, &payment_id, &cancel, wait)
            .await
    };
    reply::keyed(services.payments.engine().run(cancel).await?)
}

/// Read a payment
#[utoipa::path(
    get, path = "/v1/payments/{id}", operation_id = "get_payment", tag = "payments", security(("apiKey" = [])),
    params(("id" = String, Path, example = "pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11", description = "The payment")),
    responses((status = 200, description = "As it is now", body = Payment)),
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

/// The query of a list, as text: every mistake in it is told by its name.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many payments a page has at most.
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
}

const DEFAULT_LIMIT: u16 = 20;
const MAX_LIMIT: u16 = 100;

impl ListQuery {
    fn validate(self) -> Result<(PaymentFilter, u16), PaymentError> {
        let mut errors = Vec::new();
        let mut reject = |field: &str, message: String| {
            errors.push(FieldError {
                field: field.to_owned(),
                message,
            })
        };
        let limit = self.limit.map_or(Some(DEFAULT_LIMIT), |limit| {
            limit
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        });
        if limit.is_none() {
            reject(
                "limit",
                format!("must be a whole number from 1 to {MAX_LIMIT}"),
            );
        }
        let state = self.state.as_deref().map(PaymentState::from_name);
        if state == Some(None) {
            let names: Vec<&str> = PaymentState::ALL
                .iter()
                .map(|state| state.as_str())
                .collect();
            reject("state", format!("must be one of {}", names.join(", ")));
        }
        let is_id = |id: &str| {
            id.len() <= 64 && id.starts_with("pay_") && id.bytes().all(|b| b.is_ascii_graphic())
        };
        if self.cursor.as_deref().is_some_and(|cursor| !is_id(cursor)) {
            reject(
                "cursor",
                "must be the nextCursor of an earlier page".to_owned(),
            );
        }
        if self
            .customer_id
            .as_deref()
            .is_some_and(|id| id.contains('\0'))
        {
            reject("customerId", "must not contain a NUL character".to_owned());
        }
        if !errors.is_empty() {
            return Err(PaymentError::Invalid(errors));
        }
        let filter = PaymentFilter {
            before: self.cursor,
            state: state.flatten(),
            customer_id: self.customer_id,
        };
        Ok((filter, limit.unwrap_or(DEFAULT_LIMIT)))
    }
}

/// List payments, newest first
#[utoipa::path(
    get, path = "/v1/payments", operation_id = "list_payments", tag = "payments", security(("apiKey" = [])),
    params(ListQuery),
    responses((status = 200, description = "A page of them", body = PageView<Payment>)),
)]
pub(super) async fn list(
    services: Data<Services>,
    caller: Caller,
    query: Query<ListQuery>,
) -> Result<HttpResponse, Problem> {
    let (filter, limit) = query.into_inner().validate()?;
    let payments = services.payments.clone();
    let Caller { merchant_id } = caller;
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
