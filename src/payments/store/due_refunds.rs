//! Pending refunds that are due to be checked.

use std::time::Duration;

use sqlx::PgConnection;
use sqlx::postgres::types::PgInterval;

/// The pause before a pending refund is checked for the first time. Each further pause is twice as long.
pub(super) const FIRST_LOOK_AFTER: Duration = Duration::from_secs(2);

/// The longest pause between two checks.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

pub(super) fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}

/// A pending refund that is due to be checked.
pub(in crate::payments) struct DueRefund {
    pub(in crate::payments) merchant_id: String,
    pub(in crate::payments) refund_id: String,
    looks: i32,
}

impl DueRefund {
    /// The pause after this check. It is computed here, because a cluster takes no time in an update that is made of a column.
    fn pause(&self) -> Duration {
        let doublings = u32::try_from(self.looks).unwrap_or(0).saturating_add(1);
        let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        FIRST_LOOK_AFTER.saturating_mul(factor).min(LONGEST_PAUSE)
    }
}

/// Pending refunds at these kinds of gateway that are due to be checked, the longest due first. Read without a lock.
pub(in crate::payments) async fn list_due_refunds(
    connection: &mut PgConnection,
    gateways: &[&str],
    limit: i64,
) -> sqlx::Result<Vec<DueRefund>> {
    sqlx::query_as!(
        DueRefund,
        r#"
        select
            r.merchant_id,
            r.refund_id,
            r.looks
        from refunds r
        join payments p on p.merchant_id = r.merchant_id
            and p.payment_id = r.payment_id
        where r.state = 'PENDING'
            and r.next_look_at <= now()
            and p.gateway_type = any($1)
        order by r.next_look_at
        limit $2
        "#,
        gateways as _,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// Claims the next check of a pending refund, so that no other node makes it, and schedules the one after it with a longer pause.
/// Returns `false` if another node has claimed it, or if the refund has ended.
pub(in crate::payments) async fn claim_check(
    connection: &mut PgConnection,
    due: &DueRefund,
) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        r#"
        update refunds
        set looks = looks + 1,
            next_look_at = statement_timestamp() + $4::interval
        where merchant_id = $1
            and refund_id = $2
            and state = 'PENDING'
            and looks = $3
        "#,
        due.merchant_id,
        due.refund_id,
        due.looks,
        interval(due.pause()),
    )
    .execute(connection)
    .await?;
    Ok(taken.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_double_up_to_an_hour() {
        let seconds = |looks| {
            let due = DueRefund {
                merchant_id: String::new(),
                refund_id: String::new(),
                looks,
            };
            due.pause().as_secs()
        };
        assert_eq!([0, 1, 2, 9].map(seconds), [4, 8, 16, 2048]);
        assert_eq!([10, 40, i32::MAX].map(seconds), [3600; 3]);
    }
}
