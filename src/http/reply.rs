//! What a reply to a keyed request carries.

use actix_web::HttpResponse;

use super::stored::{mark, stored_response};
use crate::payments::{PaymentError, Reply};
use crate::problem::Problem;

/// The reply of a request that went through the gate.
pub(super) fn keyed(result: Result<Reply, PaymentError>) -> Result<HttpResponse, Problem> {
    let Reply {
        response,
        replayed,
        expires_at,
    } = result?;
    let mut response = stored_response(response);
    mark(&mut response, replayed, expires_at);
    Ok(response)
}
