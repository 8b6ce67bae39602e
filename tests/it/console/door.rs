//! Sign-in, the duration of sessions, and the headers for browsers.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::SecretString;
use sha2::Sha256;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::operator::{
    Operator, PAGES, TOKEN, audit, break_audit, encoded, key_path, service, setup,
};
use crate::support::process::{Server, error_line, program, run};
use crate::support::service::{Service, Setup};

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn without_a_token_there_is_no_console(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let nobody = Operator::at(&service);
    let unknown = nobody.get("/no-such-path").await;
    let more = [
        "/console/",
        "/console/sign-in",
        "/console/assets/console.css",
    ];
    for path in PAGES.into_iter().chain(more) {
        let page = nobody.get(path).await;
        assert_eq!(
            (page.status, &page.text),
            (unknown.status, &unknown.text),
            "{path}"
        );
        let names = |page: &super::operator::Page| -> Vec<String> {
            page.headers.keys().map(ToString::to_string).collect()
        };
        assert_eq!(names(&page), names(&unknown), "{path}");
    }
    let form = [("operator", "Ada"), ("token", TOKEN)];
    assert_eq!(nobody.post("/console/sign-in", &form).await.status, 404);
    assert_eq!(service.count("operator_actions").await, 0);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_short_token_is_refused_in_one_line(_: PgPoolOptions, db: PgConnectOptions) {
    let mut serve = program("payonce", &db);
    serve
        .arg("serve")
        .env("PAYONCE_LISTEN", "127.0.0.1:0")
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests")
        .env("PAYONCE_CONSOLE_TOKEN", "fifteen letters");
    let refused = run(&mut serve);
    assert_eq!(refused.status.code(), Some(2));
    let line = error_line(&refused);
    assert!(line.contains("PAYONCE_CONSOLE_TOKEN"), "{line}");
    assert!(!line.contains("fifteen letters"), "{line}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_newline_at_the_tokens_end_is_not_part_of_it(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    for end in ["\n", "\r\n", " \n"] {
        let token = format!("{TOKEN}{end}");
        let server = Server::start(&db, &[("PAYONCE_CONSOLE_TOKEN", token.as_str())]);
        let mut operator = Operator::at(&service);
        operator.url.clone_from(&server.url);
        let page = operator.sign_in("Ada", TOKEN).await;
        assert_eq!(page.status, 303, "{}", page.text);
        assert_eq!(operator.get("/console").await.status, 200);
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn nobody_sees_or_does_anything_without_signing_in(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let paid = service
        .merchant("acme")
        .await
        .pay("10")
        .key("k")
        .send()
        .await;
    let mut nobody = Operator::at(&service);
    let payment = format!("/console/payment?merchant=acme&id={}", paid.text("id"));
    let more = [payment, key_path("acme", "k"), "/console/none".to_owned()];
    for cookie in [
        None,
        Some("payonce_console=x.y.z".to_owned()),
        Some("a=b".to_owned()),
    ] {
        nobody.cookie = cookie;
        for path in PAGES.into_iter().chain(more.iter().map(String::as_str)) {
            let page = nobody.get(path).await;
            assert_eq!(page.status, 303, "{path}");
            let location = page.header("location").expect("where to");
            let next = format!("/console/sign-in?next={}", encoded(path));
            let expected = if path == "/console" {
                "/console/sign-in"
            } else {
                &next
            };
            assert_eq!(location, expected);
            page.hides("acme");
        }
        let form = [
            ("merchant", "acme"),
            ("operation", "create_payment"),
            ("key", "k"),
        ];
        for path in ["/console/stuck/resolve", "/console/sign-out"] {
            assert_eq!(nobody.post(path, &form).await.status, 401, "{path}");
        }
    }
    assert_eq!(audit(&service).await, []);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_wrong_token_is_refused_and_audited(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let mut mallory = Operator::at(&service);
    let refused = mallory.sign_in("Mallory", "not the console's token").await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("set-cookie"), None);
    refused.shows(
        "That is not the console&#39;s token."
            .replace("&#39;", "'")
            .as_str(),
    );
    refused.hides("not the console's token\"");
    let long = "a".repeat(65);
    let unseen = [
        "",
        " ",
        "two\nlines",
        &long,
        "Ada\u{202e}nimda",
        "\u{2066}Ada",
        "A\u{200b}da",
        "\u{feff}",
        "\u{3164}",
        "Ada\u{7f}",
    ];
    for name in unseen {
        let refused = mallory.sign_in(name, TOKEN).await;
        assert_eq!(refused.status, 400, "{name:?}");
        assert_eq!(refused.header("set-cookie"), None);
    }
    // Without the token, nobody can choose a text in the audit.
    let outcome = Some("the first try of this hour".to_owned());
    let row = (
        "nobody".to_owned(),
        "sign_in_refused".to_owned(),
        String::new(),
        outcome,
    );
    assert_eq!(audit(&service).await, [row]);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_cookie_stays_in_the_browser_and_in_the_console(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service(&db).await;
    let mut ada = Operator::at(&service);
    let clear = ada.sign_in("Ada", TOKEN).await;
    assert_eq!(clear.header("location"), Some("/console"));
    let attributes = |page: &super::operator::Page| -> Vec<String> {
        let cookie = page.header("set-cookie").expect("a cookie");
        let mut parts: Vec<String> = cookie.split("; ").skip(1).map(str::to_owned).collect();
        parts.sort();
        parts
    };
    let always = ["HttpOnly", "Max-Age=28800", "Path=/console", "SameSite=Lax"];
    assert_eq!(attributes(&clear), always);
    let form = [("operator", "Ada"), ("token", TOKEN)];
    let by_tls = ada.post_by_tls("/console/sign-in", &form).await;
    assert_eq!(attributes(&by_tls), [&always[..], &["Secure"]].concat());
    let overview = ada.get("/console").await;
    assert_eq!(overview.status, 200);
    overview.shows("<span>Ada</span>");
    overview.hides(TOKEN);
}

/// The signature that the service would make, computed here independently.
fn cookie(token: &str, operator: &str, expires_at: i64) -> String {
    let keyed = |key: &[u8]| <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any key");
    let key = keyed(token.as_bytes())
        .chain_update(b"payonce console sessions, version 1")
        .finalize()
        .into_bytes();
    let session = uuid::Uuid::new_v4().simple();
    let content = format!("{session}.{expires_at}.{}", hex::encode(operator));
    let signature = keyed(&key)
        .chain_update(format!("session\0{content}"))
        .finalize()
        .into_bytes();
    format!("payonce_console={content}.{}", hex::encode(signature))
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_expired_or_forged_cookie_is_none(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let now = chrono::Utc::now().timestamp();
    let good = cookie(TOKEN, "Ada", now + 60);
    let forged = good.replace(&hex::encode("Ada"), &hex::encode("Eve"));
    for (what, cookie, status) in [
        ("good", good.clone(), 200),
        ("expired", cookie(TOKEN, "Ada", now - 1), 303),
        ("forged", forged, 303),
        (
            "another token's",
            cookie("another token of the console", "Ada", now + 60),
            303,
        ),
        ("cut", good[..good.len() - 1].to_owned(), 303),
    ] {
        let mut ada = Operator::at(&service);
        ada.cookie = Some(cookie);
        assert_eq!(ada.get("/console").await.status, status, "{what}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_session_is_good_on_every_node_until_it_is_signed_out(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let (one, two) = (service(&db).await, service(&db).await);
    let rotated = Setup {
        console_token: Some(SecretString::from("the token that came after")),
        ..setup()
    };
    let rotated = Service::start_with(&db, rotated).await;
    let ada = Operator::signed_in(&one, "Ada").await;
    let elsewhere = ada.moved_to(&two);
    let overview = elsewhere.get("/console").await;
    assert_eq!(overview.status, 200);
    assert_eq!(ada.moved_to(&rotated).get("/console").await.status, 303);
    let grace = Operator::signed_in(&one, "Grace").await;
    let out = elsewhere
        .post("/console/sign-out", &[("csrf", &overview.csrf())])
        .await;
    assert_eq!(out.header("location"), Some("/console/sign-in"));
    let cookie = out.header("set-cookie").expect("a cookie");
    assert!(
        cookie.starts_with("payonce_console=;") && cookie.contains("Max-Age=0"),
        "{cookie}"
    );
    // A copied cookie is worthless.
    assert_eq!(ada.get("/console").await.status, 303);
    assert_eq!(elsewhere.get("/console").await.status, 303);
    assert_eq!(
        grace.get("/console").await.status,
        200,
        "another's session goes on"
    );
    let done: Vec<(String, String)> = audit(&one)
        .await
        .into_iter()
        .map(|row| (row.0, row.1))
        .collect();
    let row = |who: &str, what: &str| (who.to_owned(), what.to_owned());
    assert_eq!(
        done,
        [
            row("Ada", "sign_in"),
            row("Grace", "sign_in"),
            row("Ada", "sign_out")
        ]
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_form_without_its_sessions_own_proof_does_nothing(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service(&db).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let grace = Operator::signed_in(&service, "Grace").await;
    let others = grace.get("/console").await.csrf();
    let own = ada.get("/console").await.csrf();
    let key = [
        ("merchant", "acme"),
        ("operation", "create_payment"),
        ("key", "k"),
    ];
    for path in ["/console/sign-out", "/console/stuck/resolve"] {
        for proof in [
            None,
            Some(""),
            Some("00"),
            Some(others.as_str()),
            Some(&own[..62]),
        ] {
            let mut form = key.to_vec();
            form.extend(proof.map(|proof| ("csrf", proof)));
            let refused = ada.post(path, &form).await;
            assert_eq!(refused.status, 403, "{path} {proof:?}");
        }
    }
    assert_eq!(ada.get("/console").await.status, 200, "still signed in");
    assert_eq!(audit(&service).await.len(), 2, "the two sign-ins");
    assert_eq!(
        ada.post("/console/sign-out", &[("csrf", &own)])
            .await
            .status,
        303
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn wrong_tries_pause_the_wrong_and_never_the_right(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    let mut mallory = Operator::at(&service);
    for _ in 0..5 {
        let refused = mallory.sign_in("Mallory", "a guess, and a wrong one").await;
        assert_eq!(refused.status, 401);
    }
    // The pause of 1 s doubles with each accepted try, so on any machine a try is paused at some point.
    let mut limited = mallory.sign_in("Mallory", "another guess").await;
    for _ in 0..20 {
        if limited.status == 429 {
            break;
        }
        assert_eq!(limited.status, 401);
        limited = mallory.sign_in("Mallory", "another guess").await;
    }
    assert_eq!(limited.status, 429);
    assert_eq!(limited.header("set-cookie"), None);
    let seconds = limited.header("retry-after").expect("when").to_owned();
    assert!(seconds.parse::<u64>().expect("seconds") >= 1);
    limited.shows(&format!("Try again in {seconds} s."));
    assert_eq!(ada.get("/console").await.status, 200, "who is in stays in");
    // From behind the same proxy, at the same time.
    let grace = Operator::signed_in(&service, "Grace").await;
    assert_eq!(grace.get("/console").await.status, 200);
    let still = mallory.sign_in("Mallory", "another guess").await;
    assert!([401, 429].contains(&still.status.as_u16()));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn nobody_without_the_token_can_fill_the_audit(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let mut mallory = Operator::at(&service);
    for n in 0..120 {
        let name = format!("Mallory {n} \u{202e}");
        let refused = mallory.sign_in(&name, "a guess, and a wrong one").await;
        assert!([401, 429].contains(&refused.status.as_u16()));
    }
    let rows = audit(&service).await;
    // At 1, 10 and 100 tries an hour; a new hour may begin during the test.
    assert!((3..=6).contains(&rows.len()), "{rows:?}");
    for (who, what, _, _) in &rows {
        assert_eq!((who.as_str(), what.as_str()), ("nobody", "sign_in_refused"));
    }
    let ada = Operator::signed_in(&service, "Ada").await;
    let page = ada.get("/console/audit").await;
    page.shows("was refused: wrong token");
    page.shows("127.0.0.1");
    page.hides("Mallory");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_link_from_a_chat_leads_to_its_page_after_signing_in(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = service(&db).await;
    let paid = service
        .merchant("acme")
        .await
        .pay("10")
        .key("a/b?c=d&e#f")
        .send()
        .await;
    let links = [
        format!("/console/payment?merchant=acme&id={}", paid.text("id")),
        key_path("acme", "a/b?c=d&e#f"),
        "/console/stuck?renew=30".to_owned(),
    ];
    for link in links {
        let mut ada = Operator::at(&service);
        let sent_on = ada.get(&link).await;
        let to_form = sent_on.header("location").expect("where to").to_owned();
        let form = ada.get(&to_form).await;
        let next = form
            .values("value")
            .into_iter()
            .find(|value| value.starts_with("/console"));
        assert_eq!(next.as_deref(), Some(link.as_str()), "{}", form.text);
        // After one wrong try, the requested page is still known.
        let mistyped = [("operator", "Ada"), ("token", "wrong"), ("next", &link)];
        let again = ada.sign_in_with(&mistyped).await;
        assert!(again.values("value").contains(&link), "{}", again.text);
        let fields = [("operator", "Ada"), ("token", TOKEN), ("next", &link)];
        let signed_in = ada.sign_in_with(&fields).await;
        assert_eq!(signed_in.status, 303);
        assert_eq!(signed_in.header("location"), Some(link.as_str()));
        assert_eq!(ada.get(&link).await.status, 200);
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_sign_in_leads_nowhere_else(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    for next in [
        "",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example/console",
        "https:/console",
        "javascript:alert(1)",
        "/console.evil.example",
        "/console@evil.example",
        "/console/../v1/payments",
        "/console/%2e%2e/v1/payments",
        "/console//evil.example",
        "/%2fevil.example",
        "%2f%2fevil.example",
        "/console\r\nlocation: https://evil.example",
        "/console?a=\nset-cookie: a=b",
        "\t//evil.example",
        "/console/sign-out",
        "/v1/payments",
    ] {
        let mut ada = Operator::at(&service);
        let form = ada
            .get(&format!("/console/sign-in?next={}", encoded(next)))
            .await;
        assert_eq!(form.status, 200, "{next:?}");
        form.hides("evil");
        form.hides("name=\"next\"");
        let fields = [("operator", "Ada"), ("token", TOKEN), ("next", next)];
        let signed_in = ada.sign_in_with(&fields).await;
        assert_eq!(signed_in.status, 303, "{next:?}");
        assert_eq!(signed_in.header("location"), Some("/console"), "{next:?}");
        assert_eq!(signed_in.headers.get_all("set-cookie").iter().count(), 1);
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn nobody_is_let_in_who_is_not_in_the_audit(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let ada = Operator::signed_in(&service, "Ada").await;
    break_audit(&service).await;
    let mut grace = Operator::at(&service);
    let refused = grace.sign_in("Grace", TOKEN).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("set-cookie")),
        (500, None)
    );
    refused.hides("broken");
    let out = ada.get("/console").await.csrf();
    let refused = ada.post("/console/sign-out", &[("csrf", &out)]).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("set-cookie")),
        (500, None)
    );
    assert_eq!(ada.get("/console").await.status, 200);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn every_reply_is_shielded(_: PgPoolOptions, db: PgConnectOptions) {
    let service = service(&db).await;
    let (ada, nobody) = (
        Operator::signed_in(&service, "Ada").await,
        Operator::at(&service),
    );
    let style = "/console/assets/console.css";
    for (page, keeps) in [
        (ada.get("/console").await, "no-store"),
        (ada.get("/console/none").await, "no-store"),
        (ada.get("/console/key?merchant=a").await, "no-store"),
        (ada.post("/console/sign-out", &[]).await, "no-store"),
        (nobody.get("/console").await, "no-store"),
        (nobody.get("/console/sign-in").await, "no-store"),
        (nobody.post("/console/sign-in", &[]).await, "no-store"),
        (nobody.get(style).await, "private, max-age=300"),
    ] {
        let is = |name: &str| page.header(name).unwrap_or_default().to_owned();
        let policy = is("content-security-policy");
        for part in [
            "default-src 'none'",
            "style-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{page:?}");
        }
        assert!(
            !policy.contains("unsafe") && !policy.contains("script"),
            "{policy}"
        );
        assert_eq!(is("referrer-policy"), "no-referrer");
        assert_eq!(is("x-content-type-options"), "nosniff");
        assert_eq!(is("cache-control"), keeps, "{page:?}");
        assert!(!page.header("x-request-id").unwrap_or_default().is_empty());
    }
    assert_eq!(
        nobody.get(style).await.header("content-type"),
        Some("text/css; charset=utf-8")
    );
}
