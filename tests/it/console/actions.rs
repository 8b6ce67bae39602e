//! Operators' actions: resolving abandoned claims, and their audit.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::operator::{Operator, Page, audit, break_audit, key_path, service_with};
use crate::support::rows::end_leases;
use crate::support::scripted::Turn;
use crate::support::service::Service;

const KEY: [(&str, &str); 3] = [
    ("merchant", "acme"),
    ("operation", "create_payment"),
    ("key", "lost"),
];

/// Presses *Resolve now* on the list of stuck work, and follows the redirect to the outcome.
async fn resolve(ada: &Operator) -> Page {
    let stuck = ada.get("/console/stuck").await;
    let csrf = stuck.csrf();
    let mut form = KEY.to_vec();
    form.push(("csrf", &csrf));
    let done = ada.post("/console/stuck/resolve", &form).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let location = done.header("location").expect("where to").to_owned();
    assert!(
        location.starts_with(&key_path("acme", "lost")),
        "{location}"
    );
    ada.get(&location).await
}

/// The outcomes in the audit, oldest first.
async fn outcomes(service: &Service) -> Vec<Option<String>> {
    let rows = audit(service).await.into_iter();
    rows.filter(|row| row.1 == "resolve_now")
        .map(|row| row.3)
        .collect()
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payment_whose_answer_was_lost_is_resolved(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service_with(&db, &[Turn::Unknown]).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let pending = acme.pay("10").key("lost").send().await;
    assert_eq!(pending.status, 202);
    let id = pending.text("id");

    // Its lease has not ended, so it must not be resolved yet.
    let stuck = ada.get("/console/stuck").await;
    stuck.shows("1 in PROCESSING, 0 of them abandoned");
    assert!(!stuck.text.contains("value=\"lost\""), "no button");
    let held = resolve(&ada).await;
    held.shows("another process holds the claim");
    assert_eq!(service.gateway.charges(), 1);

    end_leases(&service.pool).await;
    let stuck = ada.get("/console/stuck").await;
    stuck.shows("1 in PROCESSING, 1 of them abandoned");
    assert!(stuck.text.contains("value=\"lost\""), "a button");
    let overview = ada.get("/console").await;
    overview.shows("of 1 in PROCESSING");
    let look = overview.link("look").expect("where to look");
    assert_eq!(look, "/console/stuck");
    let key = ada.get(&key_path("acme", "lost")).await;
    key.shows("abandoned: its lease has ended");

    let resolved = resolve(&ada).await;
    assert_eq!(resolved.status, 200);
    resolved.shows("Resolved. The outcome is final");
    resolved.shows("COMPLETED");
    resolved.hides(">Resolve now</button>");
    let asked = service.gateway.asked();
    assert_eq!(
        (asked.len(), &asked[0]),
        (2, &asked[1]),
        "the same name at the gateway"
    );
    let payment = ada
        .get(&format!("/console/payment?merchant=acme&id={id}"))
        .await;
    payment.shows("SUCCESS");
    payment.shows("It took 2 attempts");
    let retried = acme.pay("10").key("lost").send().await;
    assert_eq!((retried.status.as_u16(), retried.text("id")), (201, id));

    assert_eq!(
        outcomes(&service).await,
        [
            Some("taken_by_others".to_owned()),
            Some("resolved".to_owned())
        ]
    );
    let page = ada.get("/console/audit").await;
    for part in [
        "Ada",
        "signed in",
        "resolve now",
        "create_payment",
        "lost",
        "resolved",
        "127.0.0.1",
    ] {
        page.shows(part);
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_the_gateway_does_not_say_stays_unknown(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service_with(&db, &[Turn::Unknown, Turn::Silence, Turn::Nothing]).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    assert_eq!(acme.pay("10").key("lost").send().await.status, 202);
    for _ in 0..2 {
        end_leases(&service.pool).await;
        let tried = resolve(&ada).await;
        tried.shows("Still unknown: the gateway did not return the outcome.");
        tried.shows("PROCESSING");
    }
    assert_eq!(
        outcomes(&service).await,
        vec![Some("unknown".to_owned()); 2]
    );
    assert_eq!(service.count("unsettled_keys").await, 1);
    let none = ada.get(&key_path("acme", "never-used")).await;
    assert_eq!(none.status, 404);
    none.shows("There is no record of this key");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_claim_that_this_process_cannot_continue_is_said_to_be_one(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service_with(&db, &[Turn::Unknown, Turn::Misconfigured]).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    assert_eq!(acme.pay("10").key("lost").send().await.status, 202);
    end_leases(&service.pool).await;
    let tried = resolve(&ada).await;
    tried.shows("This process cannot continue it");
    tried.shows("PROCESSING");
    assert_eq!(outcomes(&service).await, [Some("misconfigured".to_owned())]);
    assert_eq!(service.count("unsettled_keys").await, 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn nothing_is_resolved_that_is_not_in_the_audit(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service_with(&db, &[Turn::Unknown]).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    assert_eq!(acme.pay("10").key("lost").send().await.status, 202);
    end_leases(&service.pool).await;
    let csrf = ada.get("/console/stuck").await.csrf();
    break_audit(&service).await;
    let mut form = KEY.to_vec();
    form.push(("csrf", &csrf));
    let refused = ada.post("/console/stuck/resolve", &form).await;
    assert_eq!(refused.status, 500);
    refused.hides("broken");
    assert_eq!(service.gateway.charges(), 1, "the gateway was not asked");
    assert_eq!(service.count("unsettled_keys").await, 1);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_audit_has_pages(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service_with(&db, &[]).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    sqlx::query(
        "insert into operator_actions (merchant_id, action_id, operator, peer, action)
         select '', ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, 'op-' || n, 'p', 'sign_in_refused'
         from generate_series(1, 60) as n",
    )
    .execute(&service.pool)
    .await
    .expect("sixty refusals");
    let first = ada.get("/console/audit").await;
    first.shows(">op-12<");
    first.hides(">op-11<");
    let second = ada.get(&first.link("Older actions").expect("more")).await;
    second.shows(">op-11<");
    second.shows(">op-1<");
    second.hides(">op-12<");
    assert_eq!(second.link("Older actions"), None);
    assert_eq!(ada.get("/console/audit?before=x").await.status, 400);
}
