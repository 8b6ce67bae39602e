//! Pending refunds that are due to be checked.

use std::time::Duration;

use sqlx::PgConnection;

use crate::database::interval;

/// The pause before a pending refund is checked for the first time. Each further pause is twice as long.
pub(super) const FIRST_LOOK_AFTER: Duration = Duration::from_secs(2);

/// The longest pause between two checks.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

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

/// Pending refunds at these kinds of gateway that are due to be checked, the longest due first. Read without a lock. Those of a merchant
/// whose rows are copied to another cell, or that is served there, are that cell's.
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
        left join merchants m on m.merchant_id = r.merchant_id
        where r.state = 'PENDING'
            and r.next_look_at <= now()
            and p.gateway_type = any($1)
            and (m.move_state is null or m.move_state = 'LEAVING')
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
    use sqlx::PgPool;

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

    async fn run(pool: &PgPool, sql: &'static str) {
        sqlx::raw_sql(sql).execute(pool).await.expect(sql);
    }

    async fn is_due(pool: &PgPool) -> bool {
        let mut connection = pool.acquire().await.expect("a connection");
        let due = list_due_refunds(&mut connection, &["SIMULATED"], 10).await;
        !due.expect("listed").is_empty()
    }

    #[sqlx::test(migrator = "crate::MIGRATOR")]
    async fn the_refunds_of_a_merchant_that_has_gone_are_another_cells(pool: PgPool) {
        run(
            &pool,
            "insert into payments (merchant_id, payment_id, idempotency_key, state, currency, amount_minor, amount_captured_minor,
                amount_refunded_minor, capture_method, gateway_type, gateway_token, metadata, created_at, updated_at)
            values ('acme', 'pay_1', 'k', 'PARTIALLY_REFUNDED', 'USD', 2, 2, 1, 'AUTOMATIC', 'SIMULATED', 't', '{}', now(), now());
            insert into refunds (merchant_id, refund_id, payment_id, idempotency_key, state, amount_minor, currency, created_at,
                updated_at, next_look_at)
            values ('acme', 'ref_1', 'pay_1', 'r', 'PENDING', 1, 'USD', now(), now(), now())",
        )
        .await;
        assert!(is_due(&pool).await, "its merchant is not in the table");
        run(
            &pool,
            "insert into merchants (merchant_id, name) values ('acme', 'Acme')",
        )
        .await;
        assert!(is_due(&pool).await);
        for (move_to, due) in [
            (
                "update merchants set move_state = 'LEAVING', move_cell = 2, move_id = gen_random_uuid(), move_since = now()",
                true,
            ),
            ("update merchants set move_state = 'COPYING'", false),
            ("update merchants set move_state = 'MOVED'", false),
            ("update merchants set move_state = 'ARRIVING'", false),
        ] {
            run(&pool, move_to).await;
            assert_eq!(is_due(&pool).await, due, "{move_to}");
        }
    }
}
