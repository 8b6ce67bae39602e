//! The search finds what is there, and its cost has a bound.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::operator::{Operator, Page, service};
use crate::support::service::Service;

/// The payments of a page, in their order.
fn listed(page: &Page) -> Vec<String> {
    assert_eq!(page.status, 200, "{}", page.text);
    let ids = page.text.split("<code>pay_").skip(1);
    ids.filter_map(|rest| Some(format!("pay_{}", rest.split_once('<')?.0)))
        .collect()
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn payments_are_found_by_what_names_them(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let (acme, other) = (
        service.merchant("acme").await,
        service.merchant("other").await,
    );
    let ada = Operator::signed_in(&service, "Ada").await;
    let good = acme.pay("10").key("shared").send().await.text("id");
    let bad = acme
        .pay("11")
        .key("bad")
        .card("4000000000000002")
        .send()
        .await
        .text("paymentId");
    let theirs = other.pay("12").key("shared").send().await.text("id");
    let refund = acme.post(
        &format!("/v1/payments/{good}/refunds"),
        serde_json::json!({"amount": "1"}),
    );
    assert_eq!(refund.key("refund-key").send().await.status, 201);
    let all = [&theirs, &bad, &good];
    for (query, found) in [
        ("", &all[..]),
        (&format!("id={good}"), &[&good]),
        (&format!("id=%20{good}%20"), &[&good]),
        (&format!("id={good}&merchant=acme"), &[&good]),
        (&format!("id={good}&merchant=other"), &[]),
        (&format!("id={good}&state=FAILED"), &[]),
        (&format!("id={good}&key=bad"), &[]),
        ("id=pay_none", &[]),
        ("key=shared", &[&theirs, &good]),
        ("key=shared&merchant=other", &[&theirs]),
        ("key=shared&state=SUCCESS", &[&theirs]),
        ("key=refund-key", &[&good]),
        ("key=none", &[]),
        ("merchant=acme", &[&bad, &good]),
        ("merchant=nobody", &[]),
        ("state=FAILED", &[&bad]),
        ("state=PARTIALLY_REFUNDED&merchant=acme", &[&good]),
        ("state=AUTHORIZED", &[]),
        ("merchant=%00&id=%00&key=%00&state=%00", &[]),
    ] {
        let page = ada.get(&format!("/console/payments?{query}")).await;
        let found: Vec<String> = found.iter().map(|id| (*id).clone()).collect();
        assert_eq!(listed(&page), found, "{query}");
        assert_eq!(page.link("Older payments"), None, "{query}");
    }
    for (query, status) in [
        ("key=shared", 2),
        ("key=shared&merchant=acme", 1),
        ("key=refund-key", 1),
        ("key=no", 0),
        ("key=a%20b", 0),
        ("key=%00&merchant=%00", 0),
    ] {
        let page = ada.get(&format!("/console/keys?{query}")).await;
        let rows = page.text.matches("<th scope=\"row\">").count();
        assert_eq!((page.status.as_u16(), rows), (200, status), "{query}");
    }
}

/// Payments as a year of business would leave them: one a second, in this state, the last one `seconds` after the first.
async fn insert_payments(service: &Service, merchant: &str, state: &str, first: i32, last: i32) {
    sqlx::query(
        "insert into payments (merchant_id, payment_id, idempotency_key, state, currency, amount_minor, capture_method,
             gateway_type, gateway_token, metadata, failure_code, failure_message, created_at, updated_at)
         select $1, 'pay_' || lpad(n::text, 8, '0') || '-' || $1, 'key-' || n, $2, 'USD', 100, 'AUTOMATIC', 'SIMULATED', 'tok', '{}',
             case $2 when 'FAILED' then 'c' end, case $2 when 'FAILED' then 'm' end,
             '2026-01-01'::timestamptz + make_interval(secs => n), '2026-01-01'::timestamptz + make_interval(secs => n)
         from generate_series($3, $4) as n",
    )
    .bind(merchant)
    .bind(state)
    .bind(first)
    .bind(last)
    .execute(&service.pool)
    .await
    .expect("payments");
}

/// Follows "Older payments" to the end: the payments of each page.
async fn walk(ada: &Operator, from: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(from.to_owned());
    while let Some(path) = next {
        let page = ada.get(&path).await;
        pages.push(listed(&page));
        next = page.link("Older payments");
        assert!(pages.len() < 100, "it never ends");
    }
    pages
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn pages_show_each_payment_once_and_newest_first(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    for merchant in ["acme", "idle", "other"] {
        service.merchant(merchant).await;
    }
    // One merchant's are all older than most of the other's, so that the pages' edges fall on both.
    insert_payments(&service, "other", "SUCCESS", 1, 40).await;
    insert_payments(&service, "acme", "SUCCESS", 31, 90).await;
    let mut all: Vec<String> = (1..=40).map(|n| format!("pay_{n:08}-other")).collect();
    all.extend((31..=90).map(|n| format!("pay_{n:08}-acme")));
    all.sort_unstable();
    all.reverse();
    let pages = walk(&ada, "/console/payments").await;
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [25, 25, 25, 25]);
    assert_eq!(pages.concat(), all);
    let sizes: Vec<usize> = walk(&ada, "/console/payments?merchant=other")
        .await
        .iter()
        .map(Vec::len)
        .collect();
    assert_eq!(sizes, [25, 15]);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_rare_state_is_found_a_bounded_look_at_a_time(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    for merchant in ["acme", "other"] {
        service.merchant(merchant).await;
    }
    insert_payments(&service, "acme", "FAILED", 1, 30).await;
    insert_payments(&service, "acme", "SUCCESS", 31, 20_031).await;
    insert_payments(&service, "other", "FAILED", 10, 12).await;
    let first = ada
        .get("/console/payments?state=FAILED&merchant=acme")
        .await;
    assert_eq!(
        listed(&first),
        Vec::<String>::new(),
        "20,000 were looked at, none of this state"
    );
    first.shows("Older ones were not looked at yet.");
    let next = first.link("Older payments").expect("it goes on");
    let second = ada.get(&next).await;
    assert_eq!(listed(&second).len(), 25);
    second.hides("were not looked at yet");
    let of = |pages: &[Vec<String>]| pages.concat().len();
    assert_eq!(
        of(&walk(&ada, "/console/payments?state=FAILED&merchant=acme").await),
        30
    );
    let all = walk(&ada, "/console/payments?state=FAILED").await.concat();
    let mut sorted = all.clone();
    sorted.sort_unstable();
    sorted.reverse();
    assert_eq!(
        (all.len(), &all),
        (33, &sorted),
        "of both merchants, in order"
    );
}
