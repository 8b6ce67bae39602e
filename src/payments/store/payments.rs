//! One payment at a time.

use sqlx::PgConnection;

use super::payment_row::{RowFilter, select_payments};
use super::{MadeByKey, corrupt};
use crate::payments::{Operation, Payment, PaymentState, Pending};

/// The payment that a key made.
pub(in crate::payments) async fn find_payment_of_key(
    connection: &mut PgConnection,
    merchant_id: &str,
    key: &str,
) -> sqlx::Result<Option<MadeByKey>> {
    sqlx::query_as!(
        MadeByKey,
        r#"
        select
            payment_id as id,
            created_at
        from payments
        where merchant_id = $1
            and idempotency_key = $2
        "#,
        merchant_id,
        key,
    )
    .fetch_optional(connection)
    .await
}

/// The state of the payment that a key made.
pub(in crate::payments) async fn find_state_by_key(
    connection: &mut PgConnection,
    merchant_id: &str,
    key: &str,
) -> sqlx::Result<Option<PaymentState>> {
    sqlx::query_scalar!(
        r#"
        select state
        from payments
        where merchant_id = $1
            and idempotency_key = $2
        "#,
        merchant_id,
        key,
    )
    .fetch_optional(connection)
    .await?
    .map(|state| PaymentState::from_name(&state).ok_or_else(|| corrupt("payments.state")))
    .transpose()
}

/// Locks a payment's row until the transaction ends. Every change of its amounts holds this lock.
pub(in crate::payments) async fn lock_payment(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Option<Payment>> {
    let locked = sqlx::query_scalar!(
        r#"
        select payment_id
        from payments
        where merchant_id = $1
            and payment_id = $2
        for update
        "#,
        merchant_id,
        payment_id,
    )
    .fetch_optional(&mut *connection)
    .await?;
    match locked {
        // A second statement, so that it sees what the former holder of the lock committed.
        Some(payment_id) => find_payment(connection, merchant_id, &payment_id).await,
        None => Ok(None),
    }
}

/// Locks the row of a payment that a claim is about. A payment with a claim is never deleted.
pub(in crate::payments) async fn lock_claimed(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Payment> {
    lock_payment(connection, merchant_id, payment_id)
        .await?
        .ok_or(sqlx::Error::RowNotFound)
}

/// One payment.
pub(in crate::payments) async fn find_payment(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<Option<Payment>> {
    let filter = RowFilter {
        payment_id: Some(payment_id),
        ..RowFilter::default()
    };
    Ok(select_payments(connection, merchant_id, &filter, Some(1))
        .await?
        .pop())
}

/// Saves a payment whose row the transaction has locked: all columns that can change after its creation.
pub(in crate::payments) async fn save_payment(
    connection: &mut PgConnection,
    payment: &Payment,
) -> sqlx::Result<()> {
    let (pending_operation, pending_amount_minor) = match payment.pending {
        None => (None, None),
        Some(Pending::Capture { amount }) => (
            Some(Operation::CapturePayment.as_str()),
            Some(amount.minor()),
        ),
        Some(Pending::Cancel) => (Some(Operation::CancelPayment.as_str()), Some(0)),
    };
    sqlx::query!(
        r#"
        update payments
        set state = $3,
            amount_captured_minor = $4,
            amount_refunded_minor = $5,
            amount_refunding_minor = $6,
            pending_operation = $7,
            pending_amount_minor = $8,
            updated_at = $9,
            pending_attempt_id = $10,
            cancellation_reason = $11
        where merchant_id = $1
            and payment_id = $2
        "#,
        payment.merchant_id,
        payment.id,
        payment.state.as_str(),
        payment.captured.minor(),
        payment.refunded.minor(),
        payment.refunding.minor(),
        pending_operation,
        pending_amount_minor,
        payment.updated_at,
        payment.pending_attempt,
        payment.cancellation_reason,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Removes a payment for which nothing happened.
pub(in crate::payments) async fn remove_payment(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_id: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        delete from payments
        where merchant_id = $1
            and payment_id = $2
            and state = 'PROCESSING'
        "#,
        merchant_id,
        payment_id,
    )
    .execute(connection)
    .await
    .map(drop)
}

/// The gateway of a payment, or of a refund's payment, by the payment's or the refund's id.
pub(in crate::payments) async fn find_gateway_of(
    connection: &mut PgConnection,
    merchant_id: &str,
    resource_id: &str,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        r#"
        select gateway_type
        from payments
        where merchant_id = $1
            and payment_id = coalesce(
                (
                    select payment_id
                    from refunds
                    where merchant_id = $1
                        and refund_id = $2
                ),
                $2
            )
        "#,
        merchant_id,
        resource_id,
    )
    .fetch_optional(connection)
    .await
}
