//! The reply to a request with a key, and the shape of every list.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem;
use super::stored::{mark, stored_response};
use crate::idempotency::Answer;
use crate::payments::PaymentError;
use crate::problem::Problem;

/// The reply to a request with a key.
pub(super) fn keyed(result: Result<Answer, PaymentError>) -> Result<HttpResponse, Problem> {
    let Answer {
        response,
        replayed,
        expires_at,
    } = result.map_err(problem::keyed)?;
    let mut response = stored_response(&response);
    mark(&mut response, replayed, expires_at);
    Ok(response)
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Page)]
pub(super) struct PageView<T> {
    pub(super) data: Vec<T>,
    /// Send it as `cursor` for the next page; null on the last one.
    #[schema(required = true, examples("pay_01936d2e-7c9a-7f43-a1a5-6f0c3f0a9e11"))]
    pub(super) next_cursor: Option<String>,
}
