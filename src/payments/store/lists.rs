//! Lists of payments.

use sqlx::PgConnection;

use super::payment_row::{RowFilter, select_payments};
use crate::payments::{Payment, PaymentFilter, PaymentState};

/// A merchant's payments, newest first: ids are UUIDv7, so the primary key's order is the order of creation. A filter by state or
/// customer may read all of them: see [`list_newest`].
pub(in crate::payments) async fn list_payments(
    connection: &mut PgConnection,
    merchant_id: &str,
    filter: &PaymentFilter,
    limit: i64,
) -> sqlx::Result<Vec<Payment>> {
    let filter = RowFilter {
        before: filter.before.as_deref(),
        state: filter.state.map(PaymentState::as_str),
        customer_id: filter.customer_id.as_deref(),
        idempotency_key: filter.idempotency_key.as_deref(),
        ..RowFilter::default()
    };
    select_payments(connection, merchant_id, &filter, Some(limit)).await
}

/// A merchant's payments that have one of these ids and are in this state, newest first.
pub(in crate::payments) async fn list_among(
    connection: &mut PgConnection,
    merchant_id: &str,
    payment_ids: &[String],
    state: Option<PaymentState>,
) -> sqlx::Result<Vec<Payment>> {
    let filter = RowFilter {
        state: state.map(PaymentState::as_str),
        among: Some(payment_ids),
        ..RowFilter::default()
    };
    // With a limit the planner may scan all payments in their order to find the first of these.
    select_payments(connection, merchant_id, &filter, None).await
}

/// A payment that a list examines.
pub(in crate::payments) struct ExaminedPayment {
    pub(in crate::payments) payment_id: String,
    /// The state that clients see: `PROCESSING` while a capture or cancel is pending.
    pub(in crate::payments) state: String,
}

/// A merchant's newest payments that are older than `before`, newest first, `limit` at most.
pub(in crate::payments) async fn list_newest(
    connection: &mut PgConnection,
    merchant_id: &str,
    before: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<ExaminedPayment>> {
    sqlx::query_as!(
        ExaminedPayment,
        r#"
        select
            payment_id,
            case when pending_operation is null then state else 'PROCESSING' end as "state!"
        from payments
        where merchant_id = $1
            and ($2::text is null or payment_id < $2)
        order by payment_id desc
        limit $3
        "#,
        merchant_id,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Same as [`list_newest`], for one customer. Only the index on customers has the order of this range of pairs. With
/// `customer_id = $2` the planner may scan all of the merchant's payments instead, if it estimates that many are the customer's.
pub(in crate::payments) async fn list_newest_of_customer(
    connection: &mut PgConnection,
    merchant_id: &str,
    customer_id: &str,
    before: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<ExaminedPayment>> {
    sqlx::query_as!(
        ExaminedPayment,
        r#"
        select
            payment_id,
            case when pending_operation is null then state else 'PROCESSING' end as "state!"
        from payments
        where merchant_id = $1
            and customer_id is not null
            and (customer_id, payment_id) > ($2, '')
            and (customer_id, payment_id) < ($2, coalesce($3, 'pay~'))
        order by
            customer_id desc,
            payment_id desc
        limit $4
        "#,
        merchant_id,
        customer_id,
        before,
        limit,
    )
    .fetch_all(connection)
    .await
}
