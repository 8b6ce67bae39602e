//! The console in a real browser: Debian's Chromium.
//!
//! `PAYONCE_SCREENSHOTS=docs/images` has the documentation's pictures taken (`make screenshots`).

mod chromium;

use std::path::Path;

use fantoccini::key::Key;
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use self::chromium::{Chromium, DESKTOP, Look, TELEPHONE, key};
use super::operator::{PAGES, TOKEN, audit, key_path, service_with};
use crate::support::rows::end_leases;
use crate::support::scripted::Turn;
use crate::support::service::Service;

async fn goto(browser: &Chromium, service: &Service, path: &str) {
    let address = format!("{}{path}", service.url);
    browser.driver.goto(&address).await.expect("a page");
}

/// With the keyboard alone.
async fn sign_in(browser: &Chromium, token: &str) {
    browser.see_page("Sign in").await;
    browser
        .find_out("document.getElementById('operator').focus()")
        .await;
    browser.type_keys("Ada").await;
    browser.tab().await;
    browser.type_keys(token).await;
    browser.type_keys(&key(Key::Enter)).await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_operator_finds_a_payment_and_resolves_a_stuck_one(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let Some(browser) = Chromium::start().await else {
        return;
    };
    let service = service_with(&db, &[]).await;
    let acme = service.merchant("acme").await;
    let paid = acme.pay("99.99").key("order-1").send().await.text("id");
    service.gateway.then(&[Turn::Unknown]);
    let lost = acme.pay("25.00").key("lost").send().await.text("id");
    end_leases(&service.pool).await;
    browser.look(DESKTOP).await;

    // Refused without the token.
    goto(&browser, &service, "/console/payments").await;
    sign_in(&browser, "not the console's token").await;
    let alert = browser.see("[role=alert]").await.text().await;
    assert_eq!(alert.expect("a text"), "That is not the console's token.");

    // Let in, by keyboard; the first stop is the way past the navigation.
    goto(&browser, &service, "/console").await;
    sign_in(&browser, TOKEN).await;
    browser.see_page("Overview").await;
    browser
        .see("body")
        .await
        .send_keys(&key(Key::Tab))
        .await
        .expect("a key");
    let focused = browser.find_out("return [document.activeElement.className, document.activeElement.getBoundingClientRect().left]").await;
    assert_eq!(
        focused,
        json!(["skip", 0]),
        "it shows when it has the focus"
    );
    browser.type_keys(&key(Key::Enter)).await;
    assert_eq!(
        browser.find_out("return document.activeElement.id").await,
        "main"
    );

    // Finds a payment.
    browser.follow("Payments").await;
    browser.see_page("Payments").await;
    browser.fill("#id", &paid).await;
    browser.press(".search button").await;
    // The list before the search had the payment, too.
    browser.see(&format!("#id[value='{paid}']")).await;
    browser.follow(&paid).await;
    browser.see_page(&format!("Payment {paid}")).await;
    let life = browser
        .see(".timeline")
        .await
        .text()
        .await
        .expect("its life");
    assert!(
        life.contains("Claimed by key order-1") && life.contains("Charged"),
        "{life}"
    );

    // Follows the stuck key to resolved.
    browser.follow("Stuck work").await;
    browser.see_page("Stuck work").await;
    browser.follow("lost").await;
    browser.see_page("Key lost").await;
    browser.press("main button").await;
    browser.see("[role=status].good").await;
    assert!(browser.text().await.contains("COMPLETED"));
    browser.follow(&lost).await;
    browser.see_page(&format!("Payment {lost}")).await;
    assert!(browser.text().await.contains("SUCCESS"));
    let last = audit(&service).await.pop().expect("an action");
    assert_eq!(
        (last.0.as_str(), last.1.as_str(), last.3.as_deref()),
        ("Ada", "resolve_now", Some("resolved"))
    );

    // And out.
    browser.press(".who button").await;
    browser.see_page("Sign in").await;
    goto(&browser, &service, "/console/audit").await;
    browser.see_page("Sign in").await;
}

/// An hour as a shop has it, with a bad moment; made up, for the charts.
async fn make_up_an_hour(service: &Service) {
    sqlx::query(
        "insert into traffic_minutes (merchant_id, minute, node, executed, replayed, made, declined, unknown, failed)
         select '', date_trunc('minute', now()) - make_interval(mins => n), gen_random_uuid(),
             220 + (60 * sin(n / 9.0))::int + n % 7, 18 + n % 5 + case when n between 20 and 24 then 90 else 0 end,
             200 + (55 * sin(n / 9.0))::int + n % 7, 9 + n % 4, case when n = 22 then 1 else 0 end, 0
         from generate_series(1, 59) as n",
    )
    .execute(&service.pool)
    .await
    .expect("an hour");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn every_page_is_readable_by_everybody(_: PgPoolOptions, db: PgConnectOptions) {
    let Some(browser) = Chromium::start().await else {
        return;
    };
    let service = service_with(&db, &[]).await;
    let acme = service.merchant("acme").await;
    make_up_an_hour(&service).await;
    for (order, card) in [
        ("1041", "4242424242424242"),
        ("1042", "4000000000009995"),
        ("1043", "4242424242424242"),
    ] {
        acme.pay("99.99")
            .key(&format!("order-{order}"))
            .card(card)
            .send()
            .await;
    }
    let paid = acme.pay("49.50").key("order-1044").send().await.text("id");
    acme.post(
        &format!("/v1/payments/{paid}/refunds"),
        json!({"amount": "10", "reason": "one cup was broken"}),
    )
    .key("return-17")
    .send()
    .await;
    acme.pay("51.00").key("order-1044").send().await;
    service.gateway.then(&[Turn::Unknown]);
    acme.pay("25.00").key("order-1045").send().await;
    end_leases(&service.pool).await;
    let payment = format!("/console/payment?merchant=acme&id={paid}");
    let pages = PAGES
        .into_iter()
        .map(str::to_owned)
        .zip(["overview", "payments", "keys", "stuck", "audit"]);
    let more = [
        (payment, "payment"),
        (key_path("acme", "order-1044"), "key"),
        (key_path("acme", "order-1045"), "key-stuck"),
        ("/console/keys?key=order-1044".to_owned(), "keys-found"),
    ];
    let pages: Vec<(String, &str)> = pages.chain(more).collect();

    browser.look(DESKTOP).await;
    goto(&browser, &service, "/console/sign-in").await;
    assert_readable(&browser, "sign-in").await;
    sign_in(&browser, TOKEN).await;
    browser.see_page("Overview").await;
    let other_schemes = [
        Look {
            scheme: "dark",
            ..DESKTOP
        },
        Look {
            scheme: "light",
            ..TELEPHONE
        },
    ];
    for look in [DESKTOP, TELEPHONE].into_iter().chain(other_schemes) {
        browser.look(look).await;
        for (path, name) in &pages {
            goto(&browser, &service, path).await;
            assert_readable(&browser, &format!("{name} at {look:?}")).await;
        }
    }
    if let Some(folder) = std::env::var_os("PAYONCE_SCREENSHOTS") {
        for (look, suffix) in [(DESKTOP, "desktop-light"), (TELEPHONE, "telephone-dark")] {
            browser.look(look).await;
            for (path, name) in pages
                .iter()
                .filter(|(_, name)| matches!(*name, "overview" | "payment" | "key" | "stuck"))
            {
                goto(&browser, &service, path).await;
                let file = Path::new(&folder).join(format!("console-{name}-{suffix}.png"));
                let picture = browser.driver.screenshot().await.expect("a picture");
                std::fs::write(&file, picture).expect("a file");
            }
        }
    }
}

/// `PAYONCE_AXE` names axe-core's `axe.min.js` for a second opinion; `.ci/run` has it installed.
async fn assert_readable(browser: &Chromium, page: &str) {
    let wrong = browser.find_out(include_str!("standards.js")).await;
    assert_eq!(wrong, json!([]), "{page}");
    let styled = browser
        .find_out("return getComputedStyle(document.querySelector('main')).maxWidth")
        .await;
    assert_eq!(
        styled, "1184px",
        "{page}: the style sheet is allowed and there"
    );
    if let Some(axe) = std::env::var_os("PAYONCE_AXE") {
        let axe = std::fs::read_to_string(axe).expect("axe-core");
        let violations = browser.find_out_later(&format!("{axe}\n{RUN_AXE}")).await;
        assert_eq!(violations, json!([]), "{page}");
    }
}

/// The rules of WCAG 2.1 at its level AA, and what axe-core thinks good practice.
const RUN_AXE: &str = "const done = arguments[arguments.length - 1]; \
    axe.run().then((found) => done(found.violations.map((v) => [v.id, v.help, v.nodes.map((n) => n.html)])));";
