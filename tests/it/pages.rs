//! The pages for browsers: they answer, and load nothing from other hosts.

use std::io::Read;

use payonce::problem::{Code, Retry};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::service::{Answer, Merchant, Service};

/// The files to which a page's markup refers.
fn references(page: &str) -> Vec<String> {
    ["src=\"", "href=\"", "url(", "action=\""]
        .into_iter()
        .flat_map(|start| page.split(start).skip(1))
        .filter_map(|rest| rest.split(['"', ')']).next())
        .map(str::to_owned)
        .collect()
}

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(bytes);
    decoder.read_to_string(&mut text).expect("gzip of a text");
    text
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.bytes).into_owned()
}

/// With entities decoded, as in a browser.
fn read(page: &str) -> String {
    page.replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// A page of its own host: strict policy, no script and no style within, and all that it refers to is there.
async fn assert_is_self_contained(reader: &Merchant, path: &str) -> String {
    let answer = reader.get(path).await;
    assert_eq!(answer.status, 200, "{path}");
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = answer.header("content-security-policy").expect("a policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("http") && !policy.contains('*'),
        "{path}: {policy}"
    );
    assert!(!policy.contains("unsafe-eval"), "{path}: {policy}");
    let page = text(&answer);
    for fragment in [
        "<style",
        " style=",
        " onclick=",
        " onload=",
        "<script>",
        "http:",
        "https:",
    ] {
        assert!(!page.contains(fragment), "{path}: {fragment}");
    }
    let references = references(&page);
    assert!(!references.is_empty(), "{path} has a style at least");
    for reference in &references {
        assert!(
            reference.starts_with('/') && !reference.starts_with("//"),
            "{path}: {reference}"
        );
        let there = reader.get(reference).await;
        assert_eq!(there.status, 200, "{path}: {reference}");
        assert!(!there.bytes.is_empty(), "{path}: {reference}");
    }
    page
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_problem_has_its_three_answers_and_an_example(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let mut nobody = service.merchant("acme").await;
    nobody.api_key = "nothing".to_owned();
    for code in Code::ALL {
        let path = format!("/problems/{}", code.slug());
        let page = assert_is_self_contained(&nobody, &path).await;
        let page = read(&page);
        for (heading, answer) in [
            ("<h2>What happened</h2>", code.what_happened()),
            ("<h2>Was anything charged?</h2>", code.what_was_charged()),
            ("<h2>What to do</h2>", code.what_to_do()),
        ] {
            assert!(!answer.is_empty());
            assert!(
                page.contains(&format!("{heading}<p>{answer}</p>")),
                "{path}: {heading}"
            );
        }
        assert!(page.contains(code.retry().rule()), "{path}");
        assert!(
            page.contains("name=\"viewport\" content=\"width=device-width"),
            "{path}"
        );
        let example = page
            .split("<code>")
            .last()
            .and_then(|rest| rest.split("</code>").next());
        let example: Value = serde_json::from_str(example.expect("an example")).expect("JSON");
        assert_eq!(example["code"], code.slug());
        assert_eq!(example["status"], code.status());
    }
    let unknown = nobody.get("/problems/nothing").await;
    unknown.assert_problem(404, "not-found", "fix-request");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_list_leads_to_each_problem(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let reader = service.merchant("acme").await;
    let page = assert_is_self_contained(&reader, "/problems").await;
    for code in Code::ALL {
        assert!(
            page.contains(&format!("href=\"/problems/{}\"", code.slug())),
            "{code:?}"
        );
    }
    let unknown = reader.get("/docs/nothing.js").await;
    unknown.assert_problem(404, "not-found", "fix-request");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_document_is_shown_without_another_host(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let mut nobody = service.merchant("acme").await;
    nobody.api_key = "nothing".to_owned();
    let page = assert_is_self_contained(&nobody, "/docs").await;
    for (asset, content_type, contains) in [
        ("swagger-ui-bundle.js", "text/javascript", "SwaggerUIBundle"),
        ("swagger-ui.css", "text/css", ".swagger-ui"),
        ("start.js", "text/javascript", "url: \"/openapi.json\""),
    ] {
        let path = format!("/docs/{asset}");
        assert!(
            page.contains(&format!("=\"{path}\"")),
            "{asset} is in the page"
        );
        let answer = nobody.get(&path).await;
        assert!(
            answer
                .header("content-type")
                .is_some_and(|kind| kind.starts_with(content_type))
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let gunzipped = match answer.header("content-encoding") {
            Some("gzip") => gunzip(&answer.bytes),
            _ => text(&answer),
        };
        assert!(gunzipped.contains(contains), "{asset}");
    }
}

#[test]
fn the_style_serves_a_dark_screen_and_loads_nothing() {
    let style = include_str!("../../src/http/pages/payonce.css");
    assert!(style.contains("color-scheme: light dark"));
    for outside in ["url(", "@import", "http"] {
        assert!(!style.contains(outside), "{outside}");
    }
}

/// A page must agree with the answer to programs.
#[test]
fn words_and_rules_agree() {
    for code in Code::ALL {
        let next = code.what_to_do();
        match code.retry() {
            Retry::SameKey => assert!(next.contains("same request with the same key"), "{code:?}"),
            Retry::NewKey => assert!(next.contains("new key"), "{code:?}"),
            Retry::FixRequest | Retry::No => assert!(!next.contains("new key"), "{code:?}"),
        }
        let charged = code.what_was_charged().to_lowercase();
        assert!(
            ["charged", "charge", "refunded"]
                .iter()
                .any(|word| charged.contains(word)),
            "{code:?}"
        );
    }
}
