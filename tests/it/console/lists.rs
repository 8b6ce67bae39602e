//! Lists of merchants, keys and declines, and what a line of payments says.

use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::operator::{Operator, key_path, service, service_with};
use crate::support::rows::{end_leases, filling};
use crate::support::scripted::Turn;
use crate::support::service::{Service, payment};

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payments_line_says_why_it_failed_and_what_was_given_back(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service(&db).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let mut held = payment("18450.00");
    held["captureMethod"] = json!("MANUAL");
    acme.post("/v1/payments", held).key("held").send().await;
    acme.pay("11")
        .card("4000000000009995")
        .key("declined")
        .send()
        .await;
    let paid = acme.pay("49.50").key("paid").send().await.text("id");
    let refund = acme.post(
        &format!("/v1/payments/{paid}/refunds"),
        json!({"amount": "10"}),
    );
    assert_eq!(refund.key("back").send().await.status, 201);
    let page = ada.get("/console/payments").await;
    assert_eq!(
        page.column("Amount"),
        ["49.50 USDrefunded 10.00 USD", "11.00 USD", "18,450.00 USD"]
    );
    assert_eq!(
        page.column("State"),
        [
            "↩ PARTIALLY_REFUNDED",
            "✕ FAILEDInsufficient funds (insufficient_funds)",
            "◐ AUTHORIZED"
        ]
    );
    page.shows(&format!("title=\"{paid}\""));
    page.shows("class=\"state held\"");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refund_has_a_page_and_links_lead_there(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service_with(&db, &[]).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let paid = acme.pay("1000").key("paid").send().await.text("id");
    service.gateway.then(&[Turn::Decline]);
    let path = format!("/v1/payments/{paid}/refunds");
    let refund = |key: &str| {
        acme.post(
            &path,
            json!({"amount": "1000", "reason": "one cup was broken"}),
        )
        .key(key)
    };
    assert_eq!(refund("declined").send().await.status, 402);
    service.gateway.then(&[Turn::Unknown]);
    let pending = refund("pending").send().await;
    assert_eq!(pending.status, 202);
    let id = pending.text("id");
    let address = format!("/console/refund?merchant=acme&id={id}");
    let page = ada.get(&address).await;
    for part in [
        "PROCESSING",
        "1,000.00 USD",
        "one cup was broken",
        "Resolve now",
    ] {
        page.shows(part);
    }
    let payment = format!("/console/payment?merchant=acme&id={paid}");
    assert!(page.values("href").contains(&payment));
    for from in [
        "/console/key?merchant=acme&operation=refund_payment&key=pending".to_owned(),
        format!("/console/payments?id={id}"),
        "/console/stuck".to_owned(),
    ] {
        let links = ada.get(&from).await.values("href");
        assert!(links.contains(&address), "{from}: {links:?}");
    }
    let failed: String = sqlx::query_scalar("select refund_id from refunds where state = 'FAILED'")
        .fetch_one(&service.pool)
        .await
        .expect("a refund");
    let failed = ada
        .get(&format!("/console/refund?merchant=acme&id={failed}"))
        .await;
    failed.shows("FAILED");
    failed.shows("Scripted");
    failed.hides("Resolve now");
    for (merchant, id) in [("other", id.as_str()), ("acme", "ref_none"), ("%00", "%00")] {
        let none = ada
            .get(&format!("/console/refund?merchant={merchant}&id={id}"))
            .await;
        assert_eq!(none.status, 404);
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_is_under_way_is_resolved_from_its_payments_page(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service_with(&db, &[Turn::Unknown]).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let pending = acme.pay("10").key("lost").send().await;
    let address = format!("/console/payment?merchant=acme&id={}", pending.text("id"));
    end_leases(&service.pool).await;
    let stuck = ada.get("/console/stuck").await;
    assert!(stuck.values("href").contains(&address), "its id is a link");
    assert!(
        stuck
            .values("href")
            .contains(&"/console/stuck?merchant=acme".to_owned())
    );
    let of_others = ada.get("/console/stuck?merchant=other").await;
    of_others.shows("0 in PROCESSING, 0 of them abandoned, of merchant other");
    of_others.hides("lost");

    let page = ada.get(&address).await;
    page.shows("In progress");
    let form = [
        ("csrf", page.csrf()),
        ("merchant", "acme".to_owned()),
        ("operation", "create_payment".to_owned()),
        ("key", "lost".to_owned()),
    ];
    for (name, value) in &form[1..] {
        page.shows(&format!("name=\"{name}\" value=\"{value}\""));
    }
    let form: Vec<(&str, &str)> = form
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let done = ada.post("/console/stuck/resolve", &form).await;
    let location = done.header("location").expect("where to");
    assert!(
        location.starts_with(&key_path("acme", "lost")),
        "{location}"
    );
    let page = ada.get(&address).await;
    page.shows("SUCCESS");
    page.hides(">Resolve now</button>");

    // A capture, too.
    let mut held = payment("10");
    held["captureMethod"] = json!("MANUAL");
    let held = acme
        .post("/v1/payments", held)
        .key("held")
        .send()
        .await
        .text("id");
    service.gateway.then(&[Turn::Unknown]);
    let capture = acme.post(&format!("/v1/payments/{held}/capture"), json!({}));
    assert_eq!(capture.key("cap").send().await.status, 202);
    let page = ada
        .get(&format!("/console/payment?merchant=acme&id={held}"))
        .await;
    page.shows("name=\"operation\" value=\"capture_payment\"");
    page.shows("name=\"key\" value=\"cap\"");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn declines_are_counted_by_their_reason(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let (acme, other) = (
        service.merchant("acme").await,
        service.merchant("other").await,
    );
    let ada = Operator::signed_in(&service, "Ada").await;
    for (merchant, key, card) in [
        (&acme, "1", "4000000000009995"),
        (&acme, "2", "4000000000009995"),
        (&other, "3", "4000000000009995"),
        (&acme, "4", "4000000000000127"),
        (&acme, "5", "4242424242424242"),
    ] {
        merchant.pay("10").card(card).key(key).send().await;
    }
    let page = ada.get("/console/declines").await;
    assert_eq!(
        page.column("Reason"),
        ["insufficient_funds", "incorrect_cvc"]
    );
    assert_eq!(page.column("Declines"), ["3", "1"]);
    assert_eq!(page.column("Of all declines"), ["75.0 %", "25.0 %"]);
    assert_eq!(page.column("Merchants"), ["2", "1"]);
    page.shows("4 of 5 payments were declined in the last 24 hours.");
    let payments = page.link("<code>insufficient_funds</code>");
    let payments = payments.expect("a link to the payments");
    assert_eq!(ada.get(&payments).await.column("Payment").len(), 3);
    let of_acme = ada.get("/console/declines?merchant=acme").await;
    assert_eq!(of_acme.column("Declines"), ["2", "1"]);
    let none = ada.get("/console/declines?merchant=%00&before=%00").await;
    none.shows("0 of 0 payments were declined");
    // From yesterday, so it does not count.
    let moved = "update payments set payment_id = 'pay_01900000' || substr(payment_id, 13)";
    sqlx::query(moved)
        .execute(&service.pool)
        .await
        .expect("ids of 2024");
    assert_eq!(ada.get("/console/declines").await.column("Reason"), [""; 0]);
}

/// 12,000 payments of two merchants within the last half of an hour, every third of them declined.
async fn insert_declines(service: &Service) {
    let mut tx = filling(&service.pool).await;
    sqlx::query(
        "insert into payments (merchant_id, payment_id, idempotency_key, state, currency, amount_minor, capture_method,
             gateway_type, gateway_token, metadata, failure_code, failure_message, created_at, updated_at)
         select case n % 2 when 0 then 'acme' else 'other' end,
             'pay_' || left(t.hex, 8) || '-' || right(t.hex, 4) || '-7000-8000-000000000000', 'key-' || n,
             case n % 3 when 0 then 'FAILED' else 'SUCCESS' end, 'USD', 100, 'AUTOMATIC', 'SIMULATED', 'tok', '{}',
             case n % 3 when 0 then 'c' end, case n % 3 when 0 then 'm' end, now(), now()
         from generate_series(1, 12000) as n
         cross join lateral (
             select lpad(to_hex((extract(epoch from now()) * 1000)::bigint - 1800000 + n * 150), 12, '0')
         ) as t (hex)",
    )
    .execute(&mut *tx)
    .await
    .expect("payments");
    tx.commit().await.expect("filled");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn declines_of_many_payments_are_counted_a_span_of_time_at_once(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service(&db).await;
    for merchant in ["acme", "other"] {
        service.merchant(merchant).await;
    }
    insert_declines(&service).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    for (from, declined) in [
        ("/console/declines", 4_000),
        ("/console/declines?merchant=acme", 2_000),
    ] {
        let (mut next, mut pages) = (Some(from.to_owned()), Vec::new());
        while let Some(path) = next {
            let page = ada.get(&path).await;
            next = page.link("Older declines");
            if next.is_some() {
                page.shows("Older ones were not searched yet.");
            }
            let declines = page.column("Declines");
            pages.push(declines[0].parse::<i32>().expect("a number"));
            assert!(pages.len() < 10, "it never ends");
        }
        assert_eq!(pages.iter().sum::<i32>(), declined, "{from}: {pages:?}");
        let (last, full) = pages.split_last().expect("pages");
        assert!(*last > 0 && !full.is_empty(), "{from}: {pages:?}");
        for declines in full {
            assert!((833..=1_667).contains(declines), "{from}: {pages:?}");
        }
    }
}

/// Final keys of one merchant, `first` to `last`, as batches leave them: many of one moment.
async fn insert_keys(service: &Service, state: &str, first: i32, last: i32) {
    let mut tx = filling(&service.pool).await;
    sqlx::query(
        "insert into idempotency_keys (merchant_id, operation, key, fingerprint, fingerprint_version, fingerprint_fields, state,
             attempt, owner, response_status, response_headers, response_body, created_at, completed_at, expires_at)
         select 'acme', 'create_payment', 'key-' || lpad(n::text, 6, '0'), repeat('x', 32)::bytea, 1, '', $1, 1, gen_random_uuid(), 201,
             '[]', 'b', now() + make_interval(secs => n / 100), now(), now() + interval '1 day' + make_interval(secs => n / 100)
         from generate_series($2, $3) as n",
    )
    .bind(state)
    .bind(first)
    .bind(last)
    .execute(&mut *tx)
    .await
    .expect("keys");
    tx.commit().await.expect("filled");
}

fn expected_keys(first: i32, last: i32) -> Vec<String> {
    (first..=last).map(|n| format!("key-{n:06}")).collect()
}

/// Follows "Older keys" to the end: the keys of each page.
async fn walk(ada: &Operator, from: &str) -> Vec<Vec<String>> {
    let (mut pages, mut next) = (Vec::new(), Some(from.to_owned()));
    while let Some(path) = next {
        let page = ada.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        pages.push(page.column("Key"));
        next = page.link("Older keys");
        assert!(pages.len() < 200, "it never ends");
    }
    pages
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn keys_are_listed_by_state_and_by_their_beginning(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service_with(&db, &[]).await;
    let acme = service.merchant("acme").await;
    service.merchant("other").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    insert_keys(&service, "FAILED", 1, 120).await;
    insert_keys(&service, "COMPLETED", 121, 5_220).await;
    service.gateway.then(&[Turn::Unknown]);
    assert_eq!(acme.pay("10").key("lost").send().await.status, 202);

    let newest = ada.get("/console/keys").await.column("Key");
    assert_eq!((newest.len(), newest[0].as_str()), (50, "key-005220"));
    let processing = ada.get("/console/keys?state=PROCESSING").await;
    assert_eq!(processing.column("Key"), ["lost"]);
    let first = ada.get("/console/keys?state=FAILED&merchant=acme").await;
    first.shows("Older ones were not searched yet.");
    let failed = walk(&ada, "/console/keys?state=FAILED&merchant=acme")
        .await
        .concat();
    let mut expected = expected_keys(1, 120);
    expected.reverse();
    assert_eq!(failed, expected, "each once, and newest first");
    let all = walk(&ada, "/console/keys?state=COMPLETED").await.concat();
    assert_eq!(all.len(), 5_100, "also where many are of one moment");
    assert_eq!(
        walk(&ada, "/console/keys?merchant=other").await.concat(),
        [""; 0]
    );

    let more = "There are more keys with this prefix.";
    let begin = ada.get("/console/keys?key=key-00001").await;
    assert_eq!(begin.column("Key").len(), 10);
    begin.hides(more);
    // More than a statement examines, of all merchants and of one.
    for query in ["key=key-", "key=key-&merchant=acme"] {
        let short = ada.get(&format!("/console/keys?{query}")).await;
        assert_eq!(short.column("Key"), expected_keys(1, 50), "{query}");
        short.shows(more);
    }
    let final_states = ada.get("/console/keys?key=key-0001&state=FAILED").await;
    assert_eq!(final_states.column("Key"), expected_keys(100, 120));
    final_states.hides(more);
    let beyond = ada.get("/console/keys?key=key-&state=PROCESSING").await;
    assert_eq!(beyond.column("Key"), [""; 0]);
    beyond.shows(more);
    let failed = ada.get("/console/keys?key=key-00012&state=FAILED").await;
    assert_eq!(failed.column("Key"), ["key-000120"]);
    let none = ada.get("/console/keys?key=nothing").await;
    none.shows("Keys can be searched by their name or its beginning");
    for odd in [
        "before=1",
        "before=-9223372036854775808",
        "before=9223372036854775807&before_key=%00",
    ] {
        assert_eq!(
            ada.get(&format!("/console/keys?{odd}")).await.status,
            200,
            "{odd}"
        );
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn merchants_are_listed_with_ways_to_what_is_theirs(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    for n in 0..60 {
        service.merchant(&format!("shop-{n:02}")).await;
    }
    let acme = service.merchant("acme").await;
    acme.pay("10").key("k").send().await;
    let first = ada.get("/console/merchants").await;
    let listed = first.column("Merchant");
    assert_eq!((listed.len(), listed[0].as_str()), (50, "acme"));
    assert!(first.column("Newest payment")[0].starts_with("pay_"));
    let next = first.link("Further merchants").expect("more");
    let second = ada.get(&next).await;
    assert_eq!(second.column("Merchant").len(), 11);
    assert_eq!(second.link("Further merchants"), None);
    let found = ada.get("/console/merchants?id=acme").await;
    assert_eq!(found.column("Merchant"), ["acme"]);
    for page in ["payments", "declines", "keys", "stuck work"] {
        let link = found.link(page).expect("a link");
        assert_eq!(ada.get(&link).await.status, 200, "{link}");
    }
    // Wherever a merchant is named, the name is a link to their own data.
    let payments = ada.get("/console/payments").await;
    assert_eq!(
        payments.link("acme").as_deref(),
        Some("/console/payments?merchant=acme")
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_page_says_when_it_was_made_and_renews_itself_where_asked(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service(&db).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let refresh = "<meta http-equiv=\"refresh\" content=\"30\">";
    for path in super::operator::PAGES {
        let now = "select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let at = async || -> String {
            sqlx::query_scalar(now)
                .fetch_one(&service.pool)
                .await
                .expect("the time")
        };
        let before = at().await;
        let page = ada.get(path).await;
        let after = at().await;
        page.shows("As of ");
        let made = page.values("datetime").into_iter().next().expect("a time");
        assert!(
            before <= made && made <= after,
            "{path}: {before} {made} {after}"
        );
        assert_eq!(page.link("Load again").as_deref(), Some(path));
        page.hides(refresh);
        let renewing = page.link("Renew every 30 s");
        assert_eq!(
            renewing.is_some(),
            ["/console", "/console/stuck"].contains(&path),
            "{path}"
        );
        if let Some(renewing) = renewing {
            let page = ada.get(&renewing).await;
            page.shows(refresh);
            assert_eq!(page.link("Stop renewing").as_deref(), Some(path));
        }
    }
    let asked = "/console/payments?merchant=acme&state=FAILED";
    let again = ada.get(asked).await.link("Load again");
    assert_eq!(again.as_deref(), Some(asked));
}
