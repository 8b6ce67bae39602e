//! Pending refunds that are due to be looked at.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;

/// The pause before a pending refund is looked at for the first time; each further one is twice as long.
pub(super) const FIRST_LOOK_AFTER: Duration = Duration::from_secs(2);

/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

pub(super) fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}

/// A pending refund that is to be looked at.
pub(in crate::payments) struct DueRefund {
    pub(in crate::payments) merchant_id: String,
    pub(in crate::payments) refund_id: String,
    looks: i32,
}

/// Pending refunds whose time to be looked at has come, the longest due first. Read without a lock.
pub(in crate::payments) async fn list_due_refunds(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<DueRefund>> {
    sqlx::query_as!(
        DueRefund,
        r#"
        select
            merchant_id,
            refund_id,
            looks
        from refunds
        where state = 'PENDING'
            and next_look_at <= now()
        order by next_look_at
        limit $1
        "#,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Takes the next look at a pending refund, so that no other node does; the one after it comes after a longer pause. Returns
/// `false` where another node took it, or the refund has ended.
pub(in crate::payments) async fn take_look(
    connection: &mut PgConnection,
    due: &DueRefund,
) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        r#"
        update refunds
        set looks = looks + 1,
            next_look_at = statement_timestamp() + least($4::interval * power(2, least(looks + 1, 20)), $5::interval)
        where merchant_id = $1
            and refund_id = $2
            and state = 'PENDING'
            and looks = $3
        "#,
        due.merchant_id,
        due.refund_id,
        due.looks,
        interval(FIRST_LOOK_AFTER),
        interval(LONGEST_PAUSE),
    )
    .execute(connection)
    .await?;
    Ok(taken.rows_affected() == 1)
}
