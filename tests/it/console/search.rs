//! The search finds the right payments, and its cost is bounded.

use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::operator::{Operator, Page, service};
use crate::support::rows::filling;
use crate::support::service::{Service, payment};

/// The payments of a page, in their order.
fn listed(page: &Page) -> Vec<String> {
    assert_eq!(page.status, 200, "{}", page.text);
    page.column("Payment")
        .into_iter()
        .filter(|id| id.starts_with("pay_"))
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
        let rows = page.column("Key").len();
        assert_eq!((page.status.as_u16(), rows), (200, status), "{query}");
    }
}

/// Payments as a year of business would leave them: one a second, in this state, the last one `seconds` after the first.
async fn insert_payments(service: &Service, merchant: &str, state: &str, first: i32, last: i32) {
    let mut tx = filling(&service.pool).await;
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
    .execute(&mut *tx)
    .await
    .expect("payments");
    tx.commit().await.expect("filled");
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
    first.shows("Older ones were not searched yet.");
    let next = first.link("Older payments").expect("it goes on");
    let second = ada.get(&next).await;
    assert_eq!(listed(&second).len(), 25);
    second.hides("were not searched yet");
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

/// A card that pays, by its last four digits.
const MASTERCARD: &str = "5555555555554444";

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn payments_are_found_by_what_a_customer_can_say(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let acme = service.merchant("acme").await;
    service.merchant("other").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let mut body = payment("1234.50");
    body["customer"] = json!({"id": "cust-7", "email": "Zoe@Example.com"});
    let of_zoe = acme
        .post("/v1/payments", body)
        .key("zoe")
        .send()
        .await
        .text("id");
    let mut body = payment("5.000");
    body["currency"] = json!("KWD");
    let dinars = acme
        .post("/v1/payments", body)
        .key("dinars")
        .send()
        .await
        .text("id");
    let dollars = acme
        .pay("5.00")
        .card(MASTERCARD)
        .key("dollars")
        .send()
        .await
        .text("id");
    let declined = acme
        .pay("11")
        .card("4000000000009995")
        .key("declined")
        .send()
        .await;
    let declined = declined.text("paymentId");
    let transaction: String =
        sqlx::query_scalar("select gateway_transaction_id from payments where payment_id = $1")
            .bind(&dollars)
            .fetch_one(&service.pool)
            .await
            .expect("a transaction");
    let refund = acme.post(
        &format!("/v1/payments/{of_zoe}/refunds"),
        json!({"amount": "34.50"}),
    );
    let refund = refund.key("refund-key").send().await;
    let (refund, at_gateway) = (refund.text("id"), gateway_refund(&service).await);
    for (query, found) in [
        ("amount=1234.50".to_owned(), &[&of_zoe][..]),
        ("amount=1,234.50+&currency=usd".to_owned(), &[&of_zoe]),
        ("amount=1234.50&currency=EUR".to_owned(), &[]),
        ("amount=5.00".to_owned(), &[&dollars, &dinars]),
        ("amount=5&currency=KWD".to_owned(), &[&dinars]),
        ("currency=KWD".to_owned(), &[&dinars]),
        ("customer=cust-7".to_owned(), &[&of_zoe]),
        ("customer=zoe%40example.com".to_owned(), &[&of_zoe]),
        ("customer=cust".to_owned(), &[]),
        ("last4=4444".to_owned(), &[&dollars]),
        ("decline=insufficient_funds".to_owned(), &[&declined]),
        (format!("id={transaction}"), &[&dollars]),
        (
            format!("id={}", &transaction[..transaction.len() - 3]),
            &[&dollars],
        ),
        (format!("id={refund}"), &[&of_zoe]),
        (format!("id={}", &refund[..refund.len() - 3]), &[&of_zoe]),
        (format!("id={refund}&merchant=other"), &[]),
        (format!("id={refund}&key=zoe"), &[&of_zoe]),
        (format!("id={refund}&key=dollars"), &[]),
        (format!("id={}", &dinars[..dinars.len() - 3]), &[&dinars]),
        (
            "id=pay_".to_owned(),
            &[&declined, &dollars, &dinars, &of_zoe],
        ),
        ("id=pay_f".to_owned(), &[]),
        ("last4=4444&state=FAILED".to_owned(), &[]),
    ] {
        let page = ada.get(&format!("/console/payments?{query}")).await;
        let found: Vec<String> = found.iter().map(|id| (*id).clone()).collect();
        // A refund's own table names its payment, too.
        let mut listed = listed(&page);
        listed.dedup();
        assert_eq!(listed, found, "{query}");
        let says_how = page.text.contains("Payments can be searched by");
        assert_eq!(says_how, found.is_empty(), "{query}");
    }
    let by_gateway = ada.get(&format!("/console/payments?id={at_gateway}")).await;
    assert_eq!(by_gateway.column("Refund"), std::slice::from_ref(&refund));
    for (query, complaint) in [
        ("from=yesterday", "A time is written as"),
        ("to=26.11.2026", "A time is written as"),
        ("amount=ten", "An amount is written as"),
        ("amount=1.5&currency=JPY", "An amount is written as"),
        ("amount=1.5&currency=XYZ", "A currency is a code"),
    ] {
        let page = ada.get(&format!("/console/payments?{query}")).await;
        assert_eq!(page.status, 400, "{query}");
        page.shows(complaint);
    }
}

async fn gateway_refund(service: &Service) -> String {
    sqlx::query_scalar("select gateway_refund_id from refunds")
        .fetch_one(&service.pool)
        .await
        .expect("the gateway's id")
}

/// A payment of `acme` with an id of that time.
async fn insert_payment_of(service: &Service, time: &str) {
    sqlx::query(
        "insert into payments (merchant_id, payment_id, idempotency_key, state, currency, amount_minor, capture_method,
             gateway_type, gateway_token, metadata, created_at, updated_at)
         select 'acme', 'pay_' || left(t.hex, 8) || '-' || right(t.hex, 4) || '-7000-8000-000000000000', $1, 'SUCCESS', 'USD', 100,
             'AUTOMATIC', 'SIMULATED', 'tok', '{}', $1::timestamptz, $1::timestamptz
         from (select lpad(to_hex((extract(epoch from $1::timestamptz) * 1000)::bigint), 12, '0')) as t (hex)",
    )
    .bind(time)
    .execute(&service.pool)
    .await
    .expect("a payment");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn payments_are_found_by_their_time(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    service.merchant("acme").await;
    service.merchant("idle").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let times = [
        "2026-11-25T23:59:59.999Z",
        "2026-11-26T00:00:00Z",
        "2026-11-26T11:15:00Z",
        "2026-11-26T11:15:59.999Z",
        "2026-11-26T11:16:00Z",
        "2026-11-26T23:59:59.999Z",
        "2026-11-27T00:00:00Z",
    ];
    for time in times {
        insert_payment_of(&service, time).await;
    }
    for (query, first, end) in [
        ("from=2026-11-26&to=2026-11-26", 1, 6),
        ("from=2026-11-26+11:15&to=2026-11-26+11:15", 2, 4),
        ("from=2026-11-26T11:15:00Z&to=2026-11-26T11:15:00Z", 2, 3),
        ("from=2026-11-26T12:15:00%2B01:00&to=2026-11-26+11:16", 2, 5),
        ("from=2026-11-27", 6, 7),
        ("to=2026-11-25", 0, 1),
        ("from=2026-11-28", 0, 0),
        ("from=2026-11-26&to=2026-11-25", 0, 0),
    ] {
        let page = ada.get(&format!("/console/payments?{query}")).await;
        let mut found = page.column("Key");
        found.reverse();
        let shown: Vec<String> = found
            .into_iter()
            .filter(|key| key.starts_with("2026"))
            .collect();
        assert_eq!(shown, &times[first..end], "{query}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn payments_of_years_ago_are_found_among_many_merchants(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service(&db).await;
    for merchant in ["acme", "idle", "other"] {
        service.merchant(merchant).await;
    }
    let ada = Operator::signed_in(&service, "Ada").await;
    let mut times = vec!["2001-09-09T01:46:40Z", "2014-05-13T16:53:20Z"];
    for time in &times {
        insert_payment_of(&service, time).await;
    }
    // More than one statement examines, in 6 s.
    insert_payments(&service, "other", "SUCCESS", 1, 6_000).await;
    let moved = "update payments set payment_id = 'pay_016d0000-' || to_hex(n) || '-7000-8000-000000000000', idempotency_key = 'moved'
            || n
         from (select payment_id as id, 4096 + row_number() over (order by payment_id) as n from payments where merchant_id = 'other')
             as m
         where merchant_id = 'other' and payment_id = m.id";
    sqlx::query(moved)
        .execute(&service.pool)
        .await
        .expect("ids of 2019");
    times.reverse();
    for query in ["", "?state=SUCCESS", "?currency=USD&last4="] {
        let path = format!("/console/payments{query}");
        assert_eq!(listed(&ada.get(&path).await).len(), 25, "{query}");
    }
    for query in [
        "merchant=acme",
        "to=2019-01-01",
        "to=2019-01-01&state=SUCCESS",
    ] {
        let page = ada.get(&format!("/console/payments?{query}")).await;
        let keys = page.column("Key");
        let keys: Vec<&str> = keys
            .iter()
            .map(String::as_str)
            .filter(|key| key.starts_with("20"))
            .collect();
        assert_eq!(keys, times, "{query}");
        assert_eq!(page.link("Older payments"), None, "{query}");
    }
    let found = walk(&ada, "/console/payments?state=FAILED").await.concat();
    assert_eq!(found, [""; 0]);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_search_goes_on_with_all_that_was_asked(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    service.merchant("acme").await;
    insert_payments(&service, "acme", "SUCCESS", 1, 60).await;
    insert_payments(&service, "acme", "FAILED", 61, 70).await;
    let asked =
        "/console/payments?merchant=acme&state=SUCCESS&amount=1.00&currency=USD&from=1970-01-01";
    let pages = walk(&ada, asked).await;
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [25, 25, 10]);
}

/// PostgreSQL's cost estimate of one of the console's statements, with the settings of the service's sessions. The index is used.
async fn planned_cost(service: &Service, sql: &str, arguments: &str) -> f64 {
    let mut connection = service.pool.acquire().await.expect("a connection");
    let prepared = format!("prepare console_statement as {sql}");
    let explained = format!("explain (format json) execute console_statement ({arguments})");
    for statement in [
        "set plan_cache_mode = force_custom_plan".to_owned(),
        prepared,
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await
            .expect("a statement");
    }
    let plan: serde_json::Value = sqlx::query_scalar(sqlx::AssertSqlSafe(explained))
        .fetch_one(&mut *connection)
        .await
        .expect("a plan");
    sqlx::raw_sql("deallocate console_statement")
        .execute(&mut *connection)
        .await
        .expect("a statement");
    assert!(!scans_payments(&plan[0]["Plan"]), "{plan:#}");
    plan[0]["Plan"]["Total Cost"].as_f64().expect("a cost")
}

/// Whether a part of the plan reads all of the table.
fn scans_payments(plan: &serde_json::Value) -> bool {
    let parts = plan["Plans"].as_array();
    (plan["Node Type"] == "Seq Scan" && plan["Relation Name"] == "payments")
        || parts.is_some_and(|parts| parts.iter().any(scans_payments))
}

/// Compiling took 983 of the list's 1,102 ms: PostgreSQL compiles a statement with a cost of 100,000 or more.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn no_list_costs_so_much_that_it_is_compiled(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let merchants = ["acme", "other", "third"];
    for (merchant, first) in merchants.into_iter().zip([1, 100_001, 200_001]) {
        service.merchant(merchant).await;
        insert_payments(&service, merchant, "SUCCESS", first, first + 21_999).await;
    }
    sqlx::raw_sql("analyze payments")
        .execute(&service.pool)
        .await
        .expect("statistics of payments, and none of merchants: it has few rows, so autovacuum leaves it alone");
    let statements = crate::statements::statements();
    let find = |part: &str| {
        let mut of_console = statements.iter().filter(|sql| sql.contains(part));
        let found = of_console.next().unwrap_or_else(|| panic!("no {part}"));
        assert!(of_console.next().is_none(), "more than one {part}");
        found
    };
    let all = "null, array['acme', 'other', 'third']";
    let acme = "'acme', null";
    let payments = "starts_with(l.gateway_transaction_id";
    let filters = "null, null, null, null, null, null, null, null";
    let of_state = "'FAILED', null, null, null, null, null, null, null";
    let declines = "array_agg(failure_message";
    let refunds = "starts_with(l.gateway_refund_id";
    let keys = "left join named k";
    for (part, arguments) in [
        (
            payments,
            format!("{all}, 'pay_', 'pay_~', null, null, 5001, {filters}, 26"),
        ),
        (
            payments,
            format!("{all}, 'pay_', 'pay_~', null, null, 5001, {of_state}, 26"),
        ),
        (
            payments,
            format!("{acme}, 'pay_', 'pay_~', null, null, 5000, {of_state}, 26"),
        ),
        (
            payments,
            format!("{all}, 'pay_', 'pay_~', null, 'cust', 5001, {filters}, 26"),
        ),
        (
            payments,
            format!("{all}, 'pay_', 'pay_~', array['pay_1', 'pay_2'], null, 5001, {filters}, 26"),
        ),
        (refunds, format!("{all}, 'ref_', 'ref_~', 5001, 're_', 100")),
        (declines, format!("{all}, 'pay_', 'pay_~', 5001, 100")),
        (declines, format!("{acme}, 'pay_', 'pay_~', 5000, 100")),
        (keys, format!("{all}, 'a', 'key', 'key~', 5001, null, 51")),
        (keys, format!("{acme}, 'a', 'key', 'key~', 51, null, 51")),
        (
            "edge as (",
            "null, null, '9999-01-01', '', '', '', 5000, 51".to_owned(),
        ),
        (
            "order by \"payment_id!\" desc",
            format!("{all}, 'key', 100"),
        ),
        ("order by payment_id desc limit 1", "'acme'".to_owned()),
    ] {
        let cost = planned_cost(&service, find(part), &arguments).await;
        assert!(cost < 50_000.0, "{part} ({arguments}) costs {cost}");
    }
    // So they succeed even with a short statement time-out.
    let ada = Operator::signed_in(&service, "Ada").await;
    for path in [
        "/console/payments",
        "/console/payments?state=FAILED",
        "/console/payments?last4=4242",
        "/console/payments?customer=cust",
        "/console/declines",
        "/console/merchants",
    ] {
        assert_eq!(ada.get(path).await.status, 200, "{path}");
    }
}
