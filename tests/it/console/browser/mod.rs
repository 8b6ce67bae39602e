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
use crate::support::service::{Service, payment};

async fn goto(browser: &Chromium, service: &Service, path: &str) {
    let address = format!("{}{path}", service.url);
    browser.driver.goto(&address).await.expect("a page");
}

/// Uses only the keyboard.
async fn sign_in(browser: &Chromium, token: &str) {
    browser.see_page("Sign in").await;
    browser
        .find_out("const name = document.getElementById('operator'); name.focus(); name.select()")
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

    // Refused without the token, and redirected to the requested page with it.
    goto(&browser, &service, "/console/payments?merchant=acme").await;
    sign_in(&browser, "not the console's token").await;
    let alert = browser.see("[role=alert]").await.text().await;
    assert_eq!(alert.expect("a text"), "That is not the console's token.");
    sign_in(&browser, TOKEN).await;
    browser.see_page("Payments").await;
    browser.see("#merchant[value='acme']").await;

    // By keyboard; the first stop is the link that skips the navigation.
    goto(&browser, &service, "/console").await;
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
    browser.press(&format!("a .id[title='{paid}']")).await;
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
    browser.press(&format!("a .id[title='{lost}']")).await;
    browser.see_page(&format!("Payment {lost}")).await;
    assert!(browser.text().await.contains("SUCCESS"));
    let last = audit(&service).await.pop().expect("an action");
    assert_eq!(
        (last.0.as_str(), last.1.as_str(), last.3.as_deref()),
        ("Ada", "resolve_now", Some("resolved"))
    );

    // Signs out.
    browser.press(".who button").await;
    browser.see_page("Sign in").await;
    goto(&browser, &service, "/console/audit").await;
    browser.see_page("Sign in").await;
}

/// An invented hour of traffic with a short outage, for the charts.
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
    let refund = acme
        .post(
            &format!("/v1/payments/{paid}/refunds"),
            json!({"amount": "10", "reason": "one cup was broken"}),
        )
        .key("return-17")
        .send()
        .await
        .text("id");
    let refund = format!("/console/refund?merchant=acme&id={refund}");
    let mut held = payment("18450.00");
    held["captureMethod"] = json!("MANUAL");
    acme.post("/v1/payments", held)
        .key("order-1046")
        .send()
        .await;
    acme.pay("51.00").key("order-1044").send().await;
    service.gateway.then(&[Turn::Unknown]);
    acme.pay("25.00").key("order-1045").send().await;
    end_leases(&service.pool).await;
    let payment = format!("/console/payment?merchant=acme&id={paid}");
    let pages = PAGES.into_iter().map(str::to_owned).zip([
        "overview",
        "payments",
        "declines",
        "keys",
        "stuck",
        "merchants",
        "audit",
        "hour",
        "help",
    ]);
    let more = [
        (payment, "payment"),
        (key_path("acme", "order-1044"), "key"),
        (key_path("acme", "order-1045"), "key-stuck"),
        ("/console/keys?key=order-1044".to_owned(), "keys-found"),
        (refund, "refund"),
        ("/console/payments?id=none".to_owned(), "nothing-found"),
        ("/console/payments?from=never".to_owned(), "no-search"),
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
            for (path, name) in pages.iter().filter(|(_, name)| {
                matches!(*name, "overview" | "payments" | "payment" | "key" | "stuck")
            }) {
                goto(&browser, &service, path).await;
                let file = Path::new(&folder).join(format!("console-{name}-{suffix}.png"));
                let picture = browser.driver.screenshot().await.expect("a picture");
                std::fs::write(&file, picture).expect("a file");
            }
        }
    }
}

/// A typical phone.
const PHONE: Look = Look {
    width: 390,
    height: 844,
    scheme: "light",
};

/// What is wrong with the rows of the page's tables on a narrow screen, in sentences.
const NARROW_ROWS: &str = r#"
const wrong = [];
const check = (holds, what) => { if (!holds) wrong.push(what); };
const lines = (element) => {
  const range = document.createRange();
  range.selectNodeContents(element);
  const boxes = [...range.getClientRects()].filter((box) => box.width > 0);
  const height = Math.max(...boxes.map((box) => box.bottom)) - Math.min(...boxes.map((box) => box.top));
  return Math.round(height / 20);
};
const amounts = document.querySelectorAll("tbody .amount");
check(amounts.length > 0, "no amounts");
for (const amount of amounts) {
  const box = amount.getBoundingClientRect();
  check(lines(amount) === 1, "an amount on more than one line: " + amount.textContent);
  check(box.left >= 0 && box.right <= window.innerWidth, "an amount is cut: " + amount.textContent);
}
for (const cell of document.querySelectorAll("tbody td, tbody th")) {
  const box = cell.getBoundingClientRect();
  check(box.left >= 0 && box.right <= window.innerWidth, "a cell is cut: " + cell.textContent);
  check(getComputedStyle(cell).display === "block", "not a card");
  check(getComputedStyle(cell, "::before").content.includes(cell.dataset.label), "no label: " + cell.textContent);
}
for (const number of document.querySelectorAll("tbody td.number")) {
  check(getComputedStyle(number).textAlign === "right", "not to the right: " + number.textContent);
}
const ids = document.querySelectorAll("tbody .id");
check(ids.length > 0, "no long ids");
for (const id of ids) {
  check(lines(id) === 1, "an id on " + lines(id) + " lines: " + id.title);
  check(id.title.length > 22 && id.textContent === id.title, "not whole: " + id.title);
  getSelection().selectAllChildren(id);
  check(getSelection().toString() === id.title, "copied as " + getSelection().toString());
  const end = document.createRange();
  end.setStart(id.lastChild, 0);
  end.setEnd(id.lastChild, id.lastChild.length);
  const box = end.getBoundingClientRect();
  check(box.width > 0 && box.right <= window.innerWidth, "its end is cut: " + id.title);
  check(id.getBoundingClientRect().width < 180, "not shortened: " + id.title);
}
return wrong;
"#;

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_row_is_a_card_on_a_telephone(_: PgPoolOptions, db: PgConnectOptions) {
    let Some(browser) = Chromium::start().await else {
        return;
    };
    let service = service_with(&db, &[]).await;
    let acme = service.merchant("acme").await;
    let long_key = "an-order-of-a-shop-with-long-names-0001";
    let paid = acme
        .pay("9999999999999.99")
        .key(long_key)
        .send()
        .await
        .text("id");
    let refund = json!({"amount": "1234567.89"});
    acme.post(&format!("/v1/payments/{paid}/refunds"), refund)
        .key("back")
        .send()
        .await;
    acme.pay("18450.00")
        .card("4000000000009995")
        .key("declined")
        .send()
        .await;
    let mut held = payment("18450.00");
    held["captureMethod"] = json!("MANUAL");
    acme.post("/v1/payments", held).key("held").send().await;
    browser.look(PHONE).await;
    goto(&browser, &service, "/console/payments").await;
    sign_in(&browser, TOKEN).await;
    browser.see_page("Payments").await;
    assert_eq!(browser.find_out(NARROW_ROWS).await, json!([]));
    // Held and captured payments differ in their frame and their sign, for readers who cannot see colours.
    let frame = "return [...document.querySelectorAll('.state')].map((e) => [e.textContent, getComputedStyle(e).borderTopStyle])";
    let states = browser.find_out(frame).await;
    assert_eq!(
        states,
        json!([
            ["◐ AUTHORIZED", "dashed"],
            ["✕ FAILED", "solid"],
            ["↩ PARTIALLY_REFUNDED", "solid"]
        ])
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_link_in_a_chat_is_followed_with_the_session(_: PgPoolOptions, db: PgConnectOptions) {
    let Some(browser) = Chromium::start().await else {
        return;
    };
    let service = service_with(&db, &[]).await;
    service.merchant("acme").await;
    browser.look(DESKTOP).await;
    goto(&browser, &service, "/console").await;
    sign_in(&browser, TOKEN).await;
    browser.see_page("Overview").await;
    // Another site: localhost is not the same as 127.0.0.1.
    let elsewhere = service.url.replace("127.0.0.1", "localhost");
    let page = format!("{elsewhere}/healthz");
    browser.driver.goto(&page).await.expect("another site");
    let link = format!(
        "const a = document.createElement('a'); a.href = '{}/console/stuck?merchant=acme'; a.textContent = 'look'; \
         document.body.append(a)",
        service.url
    );
    browser.find_out(&link).await;
    browser.press("body > a").await;
    browser.see_page("Stuck work").await;
    // A form of that site is sent without the session, and has no effect.
    browser.driver.goto(&page).await.expect("another site");
    let form = format!(
        "const f = document.createElement('form'); f.method = 'post'; f.action = '{}/console/sign-out'; \
         f.innerHTML = '<button>go</button>'; document.body.append(f)",
        service.url
    );
    browser.find_out(&form).await;
    browser.press("body > form > button").await;
    browser.see_page("You are signed out").await;
    goto(&browser, &service, "/console/stuck").await;
    browser.see_page("Stuck work").await;
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

/// The rules of WCAG 2.1, level AA, and axe-core's best practices.
const RUN_AXE: &str = "const done = arguments[arguments.length - 1]; \
    axe.run().then((found) => done(found.violations.map((v) => [v.id, v.help, v.nodes.map((n) => n.html)])));";
