//! What the pages show, and what they never show.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use payonce::merchants::Cell;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::operator::{Operator, PAGES, TOKEN, encoded, key_path, service, service_with, setup};
use crate::support::process::Server;
use crate::support::scripted::Turn;
use crate::support::service::{Merchant, Service, Setup, payment};

fn payment_path(merchant: &str, id: &str) -> String {
    format!("/console/payment?merchant={merchant}&id={id}")
}

/// Waits until this number of mismatches is recorded, which happens asynchronously.
async fn until_noted(service: &Service, refusals: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let noted: Option<i64> =
            sqlx::query_scalar("select sum(refusals)::bigint from refused_reuses")
                .fetch_one(&service.pool)
                .await
                .expect("a sum");
        if noted == Some(refusals) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{noted:?} are noted, not {refusals}"
        );
        crate::support::pause().await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_page_says_which_cell_it_is_of(_: PgPoolOptions, db: PgConnectOptions) {
    for (cell, shown) in [(Some(7), true), (None, false)] {
        let cell = cell.map(|number| Cell::new(number).expect("a cell"));
        let service = Service::start_with(&db, Setup { cell, ..setup() }).await;
        let ada = Operator::signed_in(&service, "Ada").await;
        for page in PAGES {
            let text = ada.get(page).await.text;
            assert_eq!(text.contains("Cell 7"), shown, "{page}");
        }
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_overview_counts_all_nodes(_: PgPoolOptions, db: PgConnectOptions) {
    let (one, two) = (service(&db).await, service(&db).await);
    let acme = one.merchant("acme").await;
    let ada = Operator::signed_in(&one, "Ada").await;
    for node in [&one, &two] {
        let acme = acme.at(node);
        let first = acme.pay("10").key(&node.url).send().await;
        assert_eq!(first.status, 201);
        for _ in 0..2 {
            assert!(acme.pay("10").key(&node.url).send().await.replayed());
        }
    }
    let declined = acme.pay("10").card("4000000000000002").key("declined");
    assert_eq!(declined.send().await.status, 402);
    assert!(declined.send().await.replayed());
    // The other node adds its own counts when its page is requested, or within ten seconds.
    assert_eq!(ada.moved_to(&two).get("/console").await.status, 200);
    let overview = ada.get("/console").await;
    overview.shows("3 executed and 5 replayed in the last hour.");
    overview.shows("2 made and 1 declined in the last hour.");
    overview.shows("62.5 % of 8 requests with a key in the last hour.");
    overview.shows("1 of 3 payments in the last hour");
    let rows: Vec<(i64, i64)> = sqlx::query_as("select sum(executed)::bigint, sum(replayed)::bigint from traffic_minutes group by node order by 1")
        .fetch_all(&one.pool)
        .await
        .expect("minutes");
    assert_eq!(rows, [(1, 2), (2, 3)]);
    // It survives the nodes: a third node that starts now shows it.
    let three = service(&db).await;
    ada.moved_to(&three)
        .get("/console")
        .await
        .shows("3 executed and 5 replayed");
    sqlx::query("update traffic_minutes set minute = minute - interval '61 minutes'")
        .execute(&one.pool)
        .await
        .expect("the rows' time is moved");
    ada.get("/console")
        .await
        .shows("0 executed and 0 replayed in the last hour.");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_payments_life_is_told_in_order(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let mut body = payment("10.00");
    body["captureMethod"] = json!("MANUAL");
    let id = acme
        .post("/v1/payments", body)
        .key("made")
        .send()
        .await
        .text("id");
    let path = payment_path("acme", &id);
    let tells = |page: &super::operator::Page, parts: &[&str]| {
        let mut rest = page.text.as_str();
        for part in parts {
            rest = rest
                .split_once(part)
                .unwrap_or_else(|| panic!("{part:?} is not there, in order: {}", page.text))
                .1;
        }
    };
    let authorized = ada.get(&path).await;
    tells(
        &authorized,
        &[
            "AUTHORIZED",
            "10.00 USD",
            "visa ending in 4242, 12/2031",
            "Claimed",
            "was asked to hold 10.00 USD",
            "Authorized",
        ],
    );
    authorized.hides("Captured</strong>");
    let capture = acme
        .post(
            &format!("/v1/payments/{id}/capture"),
            json!({"amount": "8"}),
        )
        .key("c");
    assert_eq!(capture.send().await.status, 200);
    tells(
        &ada.get(&path).await,
        &[
            "SUCCESS",
            "Claimed",
            "Authorized",
            "Captured</strong> 8.00 USD",
        ],
    );
    service.gateway.then(&[Turn::Decline]);
    for (key, status) in [("r1", 402), ("r2", 201)] {
        let refund = json!({"amount": "3", "reason": format!("reason {key}")});
        let refund = acme
            .post(&format!("/v1/payments/{id}/refunds"), refund)
            .key(key);
        assert_eq!(refund.send().await.status, status);
    }
    let refunded = ada.get(&path).await;
    tells(
        &refunded,
        &[
            "PARTIALLY_REFUNDED",
            "Claimed",
            "Authorized",
            "3.00 USD",
            "reason r1",
            "Refund failed",
            "Scripted",
            "reason r2",
            "Refunded</strong> 3.00 USD",
        ],
    );
    let none = ada.get(&payment_path("acme", "pay_none")).await;
    assert_eq!(none.status, 404);
    assert_eq!(ada.get(&payment_path("other", &id)).await.status, 404);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_decline_and_a_capture_under_way_are_told(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service_with(&db, &[]).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let declined = acme
        .pay("10")
        .card("4000000000009995")
        .key("d")
        .send()
        .await;
    let page = ada
        .get(&payment_path("acme", &declined.text("paymentId")))
        .await;
    page.shows("<strong>Declined</strong>: Insufficient funds (<code>insufficient_funds</code>).");
    let mut body = payment("10.00");
    body["captureMethod"] = json!("MANUAL");
    let id = acme
        .post("/v1/payments", body)
        .key("made")
        .send()
        .await
        .text("id");
    service.gateway.then(&[Turn::Unknown]);
    let capture = acme
        .post(&format!("/v1/payments/{id}/capture"), json!({}))
        .key("cap");
    assert_eq!(capture.send().await.status, 202);
    let page = ada.get(&payment_path("acme", &id)).await;
    page.shows("PROCESSING");
    page.shows("<strong>capture_payment</strong> began with key");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_key_shows_its_mismatches_and_only_the_last_few(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let paid = acme.pay("10").key("k").send().await;
    let record = acme
        .get("/v1/idempotency-keys/create_payment/k")
        .await
        .json();
    let (mut refusals, mut prefixes) = (0, Vec::new());
    // By the replay cache, and by the database.
    let other = super::operator::service(&db).await;
    for (node, amounts) in [(&service, 11..=13), (&other, 14..=17)] {
        for amount in amounts {
            let refused = acme.at(node).pay(&amount.to_string()).key("k").send().await;
            refused.assert_problem(422, "idempotency-key-reused", "no");
            assert_eq!(refused.json()["expectedHash"], record["fingerprint"]);
            prefixes.push(refused.text("actualHash"));
            refusals += 1;
            until_noted(&service, refusals.min(5)).await;
        }
    }
    for _ in 0..3 {
        acme.at(&other).pay("17").key("k").send().await;
    }
    until_noted(&service, 8).await;
    let page = ada.get(&key_path("acme", "k")).await;
    page.shows(record["fingerprint"].as_str().expect("a prefix"));
    page.shows(&paid.text("id"));
    for (index, prefix) in prefixes.iter().enumerate() {
        match index {
            0 | 1 => page.hides(prefix),
            _ => page.shows(prefix),
        }
    }
    let changed = page.column("What differs");
    assert!(
        changed.iter().all(|fields| fields == "amount"),
        "{changed:?}"
    );
    assert!(page.column("Times").contains(&"4".to_owned()));
    let changed = ada.get("/console").await.column("What differs");
    assert!(changed.contains(&"amount".to_owned()), "{changed:?}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_refusal_that_cannot_be_noted_is_a_refusal_all_the_same(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service(&db).await;
    let acme = service.merchant("acme").await;
    acme.pay("10").key("k").send().await;
    sqlx::query("alter table refused_reuses rename to away")
        .execute(&service.pool)
        .await
        .expect("no table");
    for amount in 1..=3 {
        let refused = acme.pay(&amount.to_string()).key("k").send().await;
        refused.assert_problem(422, "idempotency-key-reused", "no");
    }
    assert!(acme.pay("10").key("k").send().await.replayed());
}

/// Texts that a client or an operator chooses, with markup in them.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;";

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_others_chose_is_text_and_nothing_else(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let acme = service.merchant("acme").await;
    let ada = Operator::signed_in(&service, HOSTILE).await;
    let mut body = payment("10");
    body["description"] = json!(HOSTILE);
    body["metadata"] = json!({"<b>name": HOSTILE});
    body["customer"] = json!({"id": HOSTILE, "name": HOSTILE});
    body["paymentMethod"]["details"]["cardHolderName"] = json!("<i>holder");
    let key = HOSTILE.replace(' ', "_");
    let paid = acme
        .post("/v1/payments", body.clone())
        .key(&key)
        .send()
        .await;
    assert_eq!(paid.status, 201, "{}", String::from_utf8_lossy(&paid.bytes));
    body["metadata"] = json!({"<u>other": "x"});
    acme.post("/v1/payments", body)
        .key(&key)
        .send()
        .await
        .assert_problem(422, "idempotency-key-reused", "no");
    until_noted(&service, 1).await;
    let id = paid.text("id");
    let refund = acme
        .post(
            &format!("/v1/payments/{id}/refunds"),
            json!({"reason": HOSTILE}),
        )
        .key(&key)
        .send()
        .await;
    assert_eq!(refund.status, 201);
    let searches = format!(
        "/console/payments?id={0}&merchant={0}&key={0}&state={0}&before={0}",
        encoded(HOSTILE)
    );
    let keys = format!(
        "/console/keys?key={}&merchant={}",
        encoded(&key),
        encoded(HOSTILE)
    );
    let found = format!("/console/keys?key={}", encoded(&key));
    let more = [
        payment_path("acme", &id),
        key_path("acme", &key),
        searches,
        keys,
        found,
    ];
    let mut shown = 0;
    for path in PAGES.into_iter().chain(more.iter().map(String::as_str)) {
        let page = ada.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        for tag in ["<script", "<img", "<b>", "<u>", "<i>"] {
            page.hides(tag);
        }
        shown += page.text.matches("&lt;script&gt;").count();
    }
    assert!(shown > 15, "{shown}");
    let mut mallory = Operator::at(&service);
    mallory
        .sign_in(HOSTILE, "wrong, and long enough")
        .await
        .hides("<script");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn no_page_asks_another_host_or_shows_a_secret(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let acme = service.merchant("acme").await;
    let paid = acme.pay("10").key("k").send().await;
    acme.pay("11").key("k").send().await;
    until_noted(&service, 1).await;
    let token: String = sqlx::query_scalar("select gateway_token from payments")
        .fetch_one(&service.pool)
        .await
        .expect("a token");
    let ada = Operator::signed_in(&service, "Ada").await;
    let more = [
        payment_path("acme", &paid.text("id")),
        key_path("acme", "k"),
        "/console/sign-in".to_owned(),
        "/console/none".to_owned(),
    ];
    for path in PAGES.into_iter().chain(more.iter().map(String::as_str)) {
        let page = ada.get(path).await;
        let addresses: Vec<String> = [
            "src",
            "href",
            "action",
            "xlink:href",
            "srcset",
            "poster",
            "data",
        ]
        .into_iter()
        .flat_map(|attribute| page.values(attribute))
        .collect();
        assert!(addresses.len() >= 3, "{path}: {addresses:?}");
        for address in addresses {
            let stays = address == "#main"
                || address == "/console"
                || address.starts_with("/console/")
                || address.starts_with("/console?");
            assert!(stays, "{path}: {address}");
        }
        // The policy would refuse them, and the page would look otherwise than it was meant to.
        page.hides(" style=");
        page.hides("<style");
        page.hides("<script");
        for secret in [TOKEN, &acme.api_key, &token, "4242424242424242"] {
            page.hides(secret);
        }
        // An id may have the security code's digits in it, and a time its milliseconds.
        let words = page
            .text
            .split(|c: char| !c.is_ascii_alphanumeric() && !"-.".contains(c))
            .map(|word| word.trim_matches('.'));
        assert!(!words.into_iter().any(|word| word == "737"), "{path}");
    }
    let style = ada.get("/console/assets/console.css").await;
    style.hides("url(");
    style.hides("@import");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_node_that_stops_leaves_its_counts_and_one_that_starts_deletes_old_rows(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let plain = Service::start(&db).await;
    let acme = plain.merchant("acme").await;
    for (minutes, table) in [
        ("25 hours", "traffic_minutes"),
        ("23 hours", "traffic_minutes"),
        ("169 hours", "refused_reuses"),
        ("167 hours", "refused_reuses"),
    ] {
        let row = match table {
            "traffic_minutes" => {
                "insert into traffic_minutes values ('', now() - $1::interval, gen_random_uuid(), 1, 0, 0, 0, 0, 0)"
            }
            _ => {
                "insert into refused_reuses values ('acme', 'create_payment', $1, repeat('a', 16), repeat('b', 16), '{}', 1, now(), now() - $1::interval)"
            }
        };
        sqlx::query(row)
            .bind(minutes)
            .execute(&plain.pool)
            .await
            .expect("a row of long ago");
    }
    let mut server = Server::start(&db, &[("PAYONCE_CONSOLE_TOKEN", TOKEN)]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while plain.count("traffic_minutes").await + plain.count("refused_reuses").await != 2 {
        assert!(Instant::now() < deadline, "old rows stay: {}", server.log());
        crate::support::pause().await;
    }
    let here = Merchant {
        url: server.url.clone(),
        ..acme
    };
    assert_eq!(here.pay("10").key("k").send().await.status, 201);
    server.signal(Signal::SIGTERM);
    assert!(server.ended().await.success(), "{}", server.log());
    let made: Vec<i64> = sqlx::query_scalar("select made from traffic_minutes order by minute")
        .fetch_all(&plain.pool)
        .await
        .expect("the minutes");
    assert_eq!(made, [0, 1], "the young row, and the last minute");
}
