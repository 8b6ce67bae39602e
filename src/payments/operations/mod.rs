//! The operations, one file each. Each has a claim, which commits its key together with what it is about to do, and a
//! [`ClaimedWork`](super::service::ClaimedWork), which calls the gateway and settles. A claim that a dead process left behind is
//! resumed by the same work.

mod cancel;
mod capture;
mod create;
mod hold;
mod refund;
mod resume;

use sqlx::PgConnection;

use super::{Payment, PaymentError, answers, store};
use crate::idempotency::StoredResponse;
use crate::input::FieldError;
use crate::money::{Amount, MajorAmount};

/// The requested amount in the payment's currency, or the default.
fn amount_in_currency_of(
    payment: &Payment,
    requested: Option<MajorAmount>,
    default: Amount,
) -> Result<Amount, PaymentError> {
    let Some(requested) = requested else {
        return Ok(default);
    };
    let amount = requested.to_amount(payment.amount.currency());
    amount.map_err(|error| {
        let field = FieldError {
            field: "amount".to_owned(),
            message: error.to_string(),
        };
        PaymentError::Invalid(vec![field])
    })
}

/// Locks the row of the payment that a new operation is about.
async fn lock_requested(
    tx: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> Result<Payment, PaymentError> {
    store::lock_payment(tx, merchant_id, payment_id)
        .await
        .map_err(PaymentError::of_a_lock)?
        .ok_or(PaymentError::NotFound("payment"))
}

fn processing_payment(payment: &Payment) -> StoredResponse {
    answers::processing(payment, answers::payment_location(&payment.id))
}
