//! A gateway whose text cannot be stored, or not unchanged: its outcome is still stored and returned.

use std::sync::Arc;
use std::time::Duration;

use payonce::cards::CardSummary;
use payonce::gateway::{Advice, Charged, Decline, GatewayError, RefundProgress, Refunded};
use payonce::recovery::Recovery;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::rows::{end_leases, execute, make_looks_due};
use crate::support::scripted::ScriptedGateway;
use crate::support::service::{Answer, Merchant, Service, Setup, payment};

const NUMBER: &str = "4242424242424242";

async fn start(db: &PgConnectOptions, gateway: &Arc<ScriptedGateway>) -> (Service, Merchant) {
    let setup = Setup {
        // The test makes the passes.
        recovery_interval: Duration::from_secs(3600),
        ..Setup::default()
    };
    let timeout = Duration::from_secs(10);
    let service = Service::start_on(db, setup, gateway.clone(), timeout).await;
    let acme = service.merchant("acme").await;
    (service, acme)
}

async fn pay(acme: &Merchant, key: &str, method: &str) -> Answer {
    let mut body = payment("50");
    body["captureMethod"] = json!(method);
    body["paymentMethod"] = json!({"type": "CARD", "token": "pm_card_visa"});
    acme.post("/v1/payments", body).key(key).send().await
}

/// The repeat gets the first answer, and nothing is unsettled.
async fn assert_is_stored(service: &Service, first: &Answer, again: &Answer) {
    assert_eq!(again.status, first.status, "{again:?}");
    assert_eq!(again.json(), first.json());
    assert_eq!(service.count("unsettled_keys").await, 0);
}

fn charged(transaction_id: &str, last4: &str, brand: &str, name: &str) -> Charged {
    Charged {
        transaction_id: transaction_id.to_owned(),
        card: Some(CardSummary {
            brand: brand.to_owned(),
            last4: last4.to_owned(),
            expiry_month: 12,
            expiry_year: 2031,
            holder_name: Some(name.to_owned()),
        }),
    }
}

fn odd_declines() -> Vec<Decline> {
    let long = "x".repeat(10 * 1024 * 1024);
    let decline = |code: &str, message: &str, advice: &str| Decline {
        code: code.to_owned(),
        message: message.to_owned(),
        advice: Advice {
            advice_code: Some(advice.to_owned()),
            network_advice_code: Some(advice.to_owned()),
            network_decline_code: Some(advice.to_owned()),
        },
    };
    vec![
        decline("lost\0_card", "Lost\0", "do_not\0"),
        decline(&long, &long, &long),
        decline("", "", ""),
        decline(NUMBER, &format!("No {NUMBER}."), NUMBER),
    ]
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn text_that_cannot_be_stored_is_made_storable(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = ScriptedGateway::describing_no_tokens();
    let (service, acme) = start(&db, &gateway).await;
    for (n, decline) in odd_declines().into_iter().enumerate() {
        gateway.answer_charge(Err(GatewayError::Declined(decline.clone())));
        let key = format!("declined-{n}");
        let first = pay(&acme, &key, "AUTOMATIC").await;
        assert_eq!(first.status.as_u16(), 402, "{first:?}");
        let shown = first.json().to_string();
        assert!(shown.len() < 2000 && !shown.contains(NUMBER), "{shown}");
        assert_is_stored(&service, &first, &pay(&acme, &key, "AUTOMATIC").await).await;
        let read = acme
            .get(&format!("/v1/payments/{}", first.text("paymentId")))
            .await;
        assert_eq!(read.status.as_u16(), 200, "{read:?}");
    }
    let forty = "4".repeat(40);
    let long = "x".repeat(10 * 1024 * 1024);
    for (n, odd) in [
        charged("pi_1", &forty, "visa", "Zoë"),
        charged("pi_2", "4242", "vi\0sa", &long),
        charged("pi_3", "4242", &long, NUMBER),
        charged("pi\0_4", "42\u{0}2", "visa", "\0"),
        charged(&long, "4242", "visa", "Zoë"),
    ]
    .into_iter()
    .enumerate()
    {
        gateway.answer_charge(Ok(odd));
        let key = format!("charged-{n}");
        let first = pay(&acme, &key, "AUTOMATIC").await;
        assert_eq!(first.status.as_u16(), 201, "{first:?}");
        let shown = first.json().to_string();
        assert!(shown.len() < 2000 && !shown.contains(NUMBER), "{shown}");
        assert!(!shown.contains(&forty), "{shown}");
        assert_is_stored(&service, &first, &pay(&acme, &key, "AUTOMATIC").await).await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn captures_cancels_and_refunds_with_such_text_end(_: PgPoolOptions, db: PgConnectOptions) {
    let gateway = ScriptedGateway::describing_no_tokens();
    let (service, acme) = start(&db, &gateway).await;
    let long = "x".repeat(10 * 1024 * 1024);
    for (n, decline) in odd_declines().into_iter().enumerate() {
        let held = pay(&acme, &format!("held-{n}"), "MANUAL").await.text("id");
        for what in ["capture", "cancel"] {
            gateway.answer_adjustment(Err(GatewayError::Declined(decline.clone())));
            let request = acme.post(&format!("/v1/payments/{held}/{what}"), json!({}));
            let first = request.clone().key(&format!("{what}-{n}")).send().await;
            assert_eq!(first.status.as_u16(), 402, "{first:?}");
        }
        gateway.answer_adjustment(Err(GatewayError::HoldLapsed {
            reason: Some(decline.message.clone()),
        }));
        let request = acme.post(&format!("/v1/payments/{held}/cancel"), json!({}));
        let lapsed = request.key(&format!("lapsed-{n}")).send().await;
        assert_eq!(lapsed.status.as_u16(), 200, "{lapsed:?}");

        let paid = pay(&acme, &format!("paid-{n}"), "AUTOMATIC")
            .await
            .text("id");
        let refund = acme.post(
            &format!("/v1/payments/{paid}/refunds"),
            json!({"amount": "1"}),
        );
        gateway.answer_refund(Err(GatewayError::Declined(decline.clone())));
        let declined = refund.clone().key(&format!("declined-{n}")).send().await;
        assert_eq!(declined.status.as_u16(), 402, "{declined:?}");
        let pending = |id: &str| Refunded {
            gateway_refund_id: id.to_owned(),
            progress: RefundProgress::Pending,
        };
        gateway.answer_refund(Ok(pending(&long)));
        let accepted = refund.key(&format!("pending-{n}")).send().await;
        assert_eq!(accepted.status.as_u16(), 201, "{accepted:?}");
        make_looks_due(&service.pool).await;
        gateway.answer_refund(Err(GatewayError::Declined(decline)));
        assert_eq!(service.payments.follow_refunds().await.expect("a pass"), 1);
    }
    assert_eq!(service.count("unsettled_keys").await, 0);
}

/// A database that refuses a gateway's text because of an additional constraint.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_settle_that_is_refused_for_its_text_is_stored_without_it(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = ScriptedGateway::describing_no_tokens();
    let (service, acme) = start(&db, &gateway).await;
    execute(
        &service.pool,
        "alter table payments add check (failure_message not like 'odd%'); \
         alter table payments add check (card_brand not like 'odd%'); \
         alter table payments add check (cancellation_reason not like 'odd%'); \
         alter table refunds add check (failure_message not like 'odd%')",
    )
    .await;
    let odd = || GatewayError::Declined(Decline::new("odd", "odd"));
    gateway.answer_charge(Err(odd()));
    let declined = pay(&acme, "declined", "AUTOMATIC").await;
    declined.assert_problem(402, "payment-declined", "new-key");
    assert_eq!(declined.text("declineCode"), "generic_decline");
    assert_is_stored(
        &service,
        &declined,
        &pay(&acme, "declined", "AUTOMATIC").await,
    )
    .await;

    gateway.answer_charge(Ok(charged("pi_1", "4242", "odd", "Zoë")));
    let paid = pay(&acme, "paid", "AUTOMATIC").await;
    assert_eq!(paid.status.as_u16(), 201, "{paid:?}");
    assert_is_stored(&service, &paid, &pay(&acme, "paid", "AUTOMATIC").await).await;

    let refunds = format!("/v1/payments/{}/refunds", paid.text("id"));
    let refund = acme.post(&refunds, json!({"amount": "1"}));
    gateway.answer_refund(Err(odd()));
    let declined = refund.clone().key("declined").send().await;
    assert_eq!(declined.text("declineCode"), "generic_decline");
    gateway.answer_refund(Ok(Refunded {
        gateway_refund_id: "re_1".to_owned(),
        progress: RefundProgress::Pending,
    }));
    let pending = refund.key("pending").send().await;
    assert_eq!(pending.status.as_u16(), 201, "{pending:?}");
    make_looks_due(&service.pool).await;
    gateway.answer_refund(Err(odd()));
    assert_eq!(service.payments.follow_refunds().await.expect("a pass"), 1);

    let held = pay(&acme, "held", "MANUAL").await.text("id");
    gateway.answer_adjustment(Err(GatewayError::HoldLapsed {
        reason: Some("odd".to_owned()),
    }));
    let cancel = acme.post(&format!("/v1/payments/{held}/cancel"), json!({}));
    assert_eq!(cancel.key("lapsed").send().await.status.as_u16(), 200);
    assert_eq!(service.count("unsettled_keys").await, 0);
}

/// The settle is refused even without the text: the key stays unchanged, the client gets an error, and recovery makes pauses.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_settle_that_is_refused_for_good_is_not_tried_all_the_time(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let gateway = ScriptedGateway::describing_no_tokens();
    let (service, acme) = start(&db, &gateway).await;
    execute(
        &service.pool,
        "alter table payments add constraint closed check (state = 'PROCESSING')",
    )
    .await;
    let failed = pay(&acme, "refused", "AUTOMATIC").await;
    failed.assert_problem(500, "internal-error", "same-key");
    assert_eq!(service.count("unsettled_keys").await, 1);
    end_leases(&service.pool).await;
    let mut recovery = Recovery::new(service.payments.clone());
    let pass = recovery.run_once().await.expect("a pass");
    assert_eq!((pass.found, pass.failed), (1, 1), "{pass:?}");
    end_leases(&service.pool).await;
    let pass = recovery.run_once().await.expect("a pass");
    assert_eq!((pass.found, pass.waiting), (1, 1), "{pass:?}");
    execute(&service.pool, "alter table payments drop constraint closed").await;
    let pass = Recovery::new(service.payments.clone()).run_once().await;
    assert_eq!(pass.expect("a pass").resolved, 1);
    assert_eq!(
        pay(&acme, "refused", "AUTOMATIC").await.status.as_u16(),
        201
    );
}
