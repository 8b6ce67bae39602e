//! The gateway's books against the database, payment by payment and refund by refund.

use std::collections::BTreeSet;
use std::time::Instant;

use sqlx::PgPool;

use crate::support::gateway::{ChargeStatus, Ledger};

use super::storm::Storm;
use super::told::Told;

/// Waits until nothing is in `PROCESSING`.
pub async fn until_settled(pool: &PgPool, deadline: Instant, storm: &Storm) {
    loop {
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from idempotency_keys where state = 'PROCESSING') + \
                    (select count(*) from unsettled_keys) + \
                    (select count(*) from payments where state = 'PROCESSING' or pending_operation is not null \
                                                      or amount_refunding_minor > 0) + \
                    (select count(*) from refunds where state = 'PROCESSING')",
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
    payments
        .iter()
        .for_each(|payment| assert_payment(payment, ledger));
    refunds
        .iter()
        .for_each(|refund| assert_refund(refund, ledger));

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

fn assert_payment(payment: &PaymentRow, ledger: &Ledger) {
    let id = payment.payment_id.as_str();
    if payment.state == "FAILED" {
        assert_eq!(ledger.charges_for(id).len(), 0, "{id} failed");
        return;
    }
    let charge = ledger.only_charge(id);
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

fn assert_refund(refund: &RefundRow, ledger: &Ledger) {
    let made = ledger.refunds_by_id(&refund.refund_id);
    match refund.state.as_str() {
        "SUCCESS" => assert!(
            matches!(made[..], [one] if one.amount == refund.amount_minor),
            "{}: {made:?}",
            refund.refund_id
        ),
        _ => assert!(made.is_empty(), "{} failed: {made:?}", refund.refund_id),
    }
}
