//! The gateway's books against the database, payment by payment and refund by refund.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use sqlx::PgPool;

use crate::support::gateway::{ChargeEntry, ChargeStatus, Ledger, RefundEntry};

use super::storm::Storm;
use super::told::Told;
use crate::support::rows::make_looks_due;

/// Waits until nothing is in `PROCESSING` or pending. The next check of each pending refund is due.
pub async fn until_settled(pool: &PgPool, deadline: Instant, storm: &Storm) {
    for round in 0_u32.. {
        // Not each time, because a check takes a moment.
        if round.is_multiple_of(40) {
            make_looks_due(pool).await;
        }
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from idempotency_keys where state = 'PROCESSING') + \
                    (select count(*) from unsettled_keys) + \
                    (select count(*) from payments where state = 'PROCESSING' or pending_operation is not null \
                                                      or amount_refunding_minor > 0) + \
                    (select count(*) from refunds where state in ('PROCESSING', 'PENDING'))",
        )
        .fetch_one(pool)
        .await
        .expect("a count");
        if left == 0 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{left} rows are not settled: {}",
            storm.logs()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[derive(sqlx::FromRow)]
struct PaymentRow {
    payment_id: String,
    state: String,
    amount_minor: i64,
    amount_captured_minor: i64,
    amount_refunded_minor: i64,
}

#[derive(sqlx::FromRow)]
struct RefundRow {
    refund_id: String,
    state: String,
    amount_minor: i64,
}

pub async fn books_agree(pool: &PgPool, ledger: &Ledger, told: &Told) {
    ledger.assert_nothing_twice();
    let payments: Vec<PaymentRow> = sqlx::query_as("select * from payments")
        .fetch_all(pool)
        .await
        .expect("payments");
    let refunds: Vec<RefundRow> = sqlx::query_as("select * from refunds")
        .fetch_all(pool)
        .await
        .expect("refunds");
    let (mut charges, mut made) = (HashMap::new(), HashMap::new());
    for charge in &ledger.charges {
        let of_payment: &mut Vec<_> = charges.entry(charge.payment_id.as_str()).or_default();
        of_payment.push(charge);
    }
    for refund in &ledger.refunds {
        let of_refund: &mut Vec<_> = made.entry(refund.refund_id.as_str()).or_default();
        of_refund.push(refund);
    }
    for payment in &payments {
        let charges = charges.get(payment.payment_id.as_str());
        assert_payment(payment, charges.map_or(&[], Vec::as_slice));
    }
    for refund in &refunds {
        let made = made.get(refund.refund_id.as_str());
        assert_refund(refund, made.map_or(&[], Vec::as_slice));
    }

    let ours: BTreeSet<&str> = payments
        .iter()
        .map(|payment| payment.payment_id.as_str())
        .chain(refunds.iter().map(|refund| refund.refund_id.as_str()))
        .collect();
    for charge in &ledger.charges {
        assert!(
            ours.contains(charge.payment_id.as_str()),
            "lost: {charge:?}"
        );
    }
    for refund in &ledger.refunds {
        assert!(ours.contains(refund.refund_id.as_str()), "lost: {refund:?}");
    }
    let made = told.made();
    assert!(!made.is_empty(), "nothing was paid at all");
    for id in &made {
        assert!(
            ours.contains(id.as_str()),
            "a client was told of {id}, and it is not there"
        );
    }
}

fn assert_payment(payment: &PaymentRow, charges: &[&ChargeEntry]) {
    let id = payment.payment_id.as_str();
    if payment.state == "FAILED" {
        assert!(charges.is_empty(), "{id} failed: {charges:?}");
        return;
    }
    let [charge] = charges else {
        panic!("{id} has not one charge: {charges:?}");
    };
    assert_eq!(charge.amount, payment.amount_minor, "{id}");
    let status = match payment.state.as_str() {
        "AUTHORIZED" => ChargeStatus::Held,
        "CANCELED" => ChargeStatus::Canceled,
        _ => ChargeStatus::Captured,
    };
    assert_eq!(charge.status, status, "{id} is {}", payment.state);
    assert_eq!(
        charge.amount_captured, payment.amount_captured_minor,
        "{id}: captured"
    );
    assert_eq!(
        charge.amount_refunded, payment.amount_refunded_minor,
        "{id}: refunded"
    );
}

fn assert_refund(refund: &RefundRow, made: &[&RefundEntry]) {
    let id = &refund.refund_id;
    match refund.state.as_str() {
        "SUCCESS" => assert!(
            matches!(made, [one] if one.amount == refund.amount_minor && one.status == "succeeded"),
            "{id}: {made:?}"
        ),
        // It was never made, or failed later.
        _ => assert!(
            made.iter().all(|one| one.status == "failed"),
            "{id} failed: {made:?}"
        ),
    }
}
