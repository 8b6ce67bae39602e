//! Claims of a day ago, whose keys the gateway has forgotten: three ends.

use payonce::gateway::{CaptureMethod, Charge, GatewayToken};
use payonce::money::{Amount, Currency};
use sqlx::postgres::PgPoolOptions;

use super::*;
use crate::support::gateway::{Endpoint, Fault};

/// What the service's own call for the payment asked for.
fn late_call(payment_id: &str) -> Charge {
    let usd = Currency::from_code("USD").expect("USD");
    Charge {
        payment_id: payment_id.to_owned(),
        merchant_id: "acme".to_owned(),
        account: None,
        amount: Amount::from_minor(1_000, usd),
        token: GatewayToken::new("pm_card_visa"),
        capture_method: CaptureMethod::Automatic,
        gateway_customer_id: None,
        off_session: false,
        description: None,
        claimed_at: chrono::Utc::now(),
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_day_old_claim_is_found_charged_or_not_or_is_waited_for(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = TestGateway::start();
    let service = node(&db, &gateway, HASTY).await;
    let acme = service.merchant("acme").await;
    gateway.script([(Endpoint::Charge, Fault::Hold)]);
    assert_eq!(visa(&acme, "10", "charged").send().await.status, 202);
    gateway.release();
    gateway.script([(Endpoint::Charge, Fault::DropBefore); 60]);
    assert_eq!(visa(&acme, "10", "never").send().await.status, 202);
    let late = visa(&acme, "10", "late").send().await;
    assert_eq!(late.status, 202);
    gateway.calm();
    gateway.forget_keys();
    // The late one's call was made just before the twentieth hour was over, and is still under way.
    execute(&service.pool,
        "update idempotency_keys set created_at = created_at
            - case key when 'late' then interval '20 hours 30 minutes' else interval '24 hours' end",
    )
    .await;
    let calls = gateway.calls(Endpoint::Charge).received;
    // However late the search is, it is not asked.
    gateway.search_lag(Duration::from_secs(3600));
    let summary = recover(&service).await;
    assert_eq!((summary.resolved, summary.unknown), (2, 1));
    assert_eq!(
        gateway.calls(Endpoint::Charge).received,
        calls,
        "no call to charge"
    );
    assert_eq!(gateway.calls(Endpoint::Search).received, 0);
    assert_eq!(visa(&acme, "10", "charged").send().await.status, 201);
    let never = visa(&acme, "10", "never").send().await;
    assert_eq!(never.text("declineCode"), "never_reached_gateway");
    // Its call arrives.
    let stripe = adapter(&gateway, AMPLE);
    stripe
        .charge(&late_call(&late.text("id")))
        .await
        .expect("a charge");
    assert_eq!(recover(&service).await.resolved, 1);
    let found = visa(&acme, "10", "late").send().await;
    assert_eq!((found.status.as_u16(), found.replayed()), (201, true));
    let ledger = gateway.ledger();
    ledger.only_charge(&found.text("id"));
    assert_eq!(ledger.charges.len(), 2);
    assert_eq!(service.count("unsettled_keys").await, 0);
}
