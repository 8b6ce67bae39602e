//! Each refusal: its status, its slug, its `retry`, and that it leaves nothing behind.

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::service::{Service, payment};

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn refused_requests_leave_no_row(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let pay = || acme.pay("1");
    let fix = "fix-request";
    let long = "k".repeat(256);
    let big = payment("1").to_string() + &" ".repeat(70 * 1024);
    for (what, request, status, slug) in [
        ("no key", pay(), 400, "idempotency-key-missing"),
        (
            "a key too long",
            pay().key(&long),
            400,
            "idempotency-key-invalid",
        ),
        (
            "an empty key",
            pay().key(""),
            400,
            "idempotency-key-invalid",
        ),
        (
            "a key with a space",
            pay().key("a b"),
            400,
            "idempotency-key-invalid",
        ),
        (
            "a broken quote",
            pay().key("\"a"),
            400,
            "idempotency-key-invalid",
        ),
        (
            "two keys",
            pay().key("a").key("b"),
            400,
            "idempotency-key-invalid",
        ),
        ("no JSON", pay().key("k").body("{"), 400, "malformed-json"),
        ("a list", pay().key("k").body("[]"), 400, "malformed-json"),
        ("nothing", pay().key("k").body(""), 400, "malformed-json"),
        (
            "deep lists",
            pay().key("k").body("[".repeat(20_000)),
            400,
            "malformed-json",
        ),
        (
            "no API key",
            pay().key("k").without("authorization"),
            401,
            "unauthorized",
        ),
        (
            "a plain text",
            pay()
                .key("k")
                .without("content-type")
                .header("content-type", "text/plain"),
            415,
            "unsupported-media-type",
        ),
        (
            "no type",
            pay().key("k").without("content-type"),
            415,
            "unsupported-media-type",
        ),
        (
            "HTML wanted",
            pay().key("k").header("accept", "text/html"),
            406,
            "not-acceptable",
        ),
        ("70 KiB", pay().key("k").body(big), 413, "payload-too-large"),
        (
            "an unknown payment",
            acme.post("/v1/payments/pay_x/capture", json!({})).key("k"),
            404,
            "not-found",
        ),
        (
            "an unknown path",
            acme.post("/v1/orders", json!({})).key("k"),
            404,
            "not-found",
        ),
        (
            "an unknown method",
            acme.post("/v1/refunds/ref_x", json!({})).key("k"),
            405,
            "method-not-allowed",
        ),
    ] {
        let answer = request.send().await;
        println!("{what}");
        answer.assert_problem(status, slug, fix);
        assert!(answer.header("x-request-id").is_some());
        service.assert_no_rows(what).await;
    }
    let wrong = acme
        .pay("1")
        .key("k")
        .without("authorization")
        .header("authorization", "Bearer sk_0");
    wrong.send().await.assert_problem(401, "unauthorized", fix);
    let method = acme
        .post("/v1/refunds/ref_x", json!({}))
        .key("k")
        .send()
        .await;
    assert_eq!(method.header("allow"), Some("GET, HEAD"));
    assert_eq!(pay().key(&"k".repeat(255)).send().await.status, 201);
    let (bare, quoted) = (pay().key("q").send().await, pay().key("\"q\"").send().await);
    assert_eq!(bare.bytes, quoted.bytes);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_bad_field_is_named_and_no_message_repeats_a_card(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let card = "/paymentMethod/details/cardNumber";
    for (pointer, value, field) in [
        ("/amount", json!(0), "amount"),
        ("/amount", json!("-1"), "amount"),
        ("/amount", json!("NaN"), "amount"),
        ("/amount", json!("1e400"), "amount"),
        ("/amount", json!("1".repeat(40)), "amount"),
        ("/amount", json!("1.234"), "amount"),
        ("/amount", json!(true), "amount"),
        ("/amount", Value::Null, "amount"),
        ("/currency", json!("usd"), "currency"),
        ("/currency", json!("XXX"), "currency"),
        ("/captureMethod", json!("LATER"), "captureMethod"),
        ("/paymentMethod/type", json!("CASH"), "paymentMethod.type"),
        (
            card,
            json!("4242424242424241"),
            "paymentMethod.details.cardNumber",
        ),
        (card, json!("4242"), "paymentMethod.details.cardNumber"),
        (
            "/paymentMethod/details/cvv",
            json!("12"),
            "paymentMethod.details.cvv",
        ),
        (
            "/paymentMethod/details/expiryMonth",
            json!(13),
            "paymentMethod.details.expiryMonth",
        ),
        (
            "/paymentMethod/details/expiryYear",
            json!("31"),
            "paymentMethod.details.expiryYear",
        ),
        ("/customer/email", json!("nobody"), "customer.email"),
        ("/customer/name", json!("a\u{0}b"), "customer.name"),
        ("/customer/vip", json!(1), "customer.vip"),
        ("/description", json!("4242424242424242"), "description"),
        ("/merchantId", json!("globex"), "merchantId"),
        ("/metadata", json!({"a": 1}), "metadata.a"),
    ] {
        let mut body = payment("1");
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        body.pointer_mut(parent).expect("the parent")[name] = value;
        let answer = acme.post("/v1/payments", body).key("k").send().await;
        println!("{pointer}");
        answer.assert_problem(422, "validation-failed", "fix-request");
        assert_eq!(answer.json()["errors"][0]["field"], field);
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("424242"));
    }
    for (body, field) in [
        (
            payment("1")
                .to_string()
                .replace("\"1\"", "\"JPY\"")
                .replace("USD", "JPY"),
            "amount",
        ),
        (payment("1.5").to_string().replace("USD", "JPY"), "amount"),
        (
            payment("1.2345").to_string().replace("USD", "KWD"),
            "amount",
        ),
        (payment("1").to_string().replace("\"1\"", "1e400"), "amount"),
        (
            payment("1").to_string().replace(
                "\"1\"",
                &format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000)),
            ),
            "amount",
        ),
        (
            payment("1").to_string().replacen('{', "{\"amount\":2,", 1),
            "amount",
        ),
    ] {
        let answer = acme.pay("1").key("k").body(body).send().await;
        answer.assert_problem(422, "validation-failed", "fix-request");
        assert_eq!(answer.json()["errors"][0]["field"], field);
    }
    let surrogate = payment("1").to_string().replace("\"A\"", "\"\\ud800\"");
    acme.pay("1")
        .key("k")
        .body(surrogate)
        .send()
        .await
        .assert_problem(400, "malformed-json", "fix-request");
    let nothing = acme
        .post("/v1/payments", json!({"x": 1}))
        .key("k")
        .send()
        .await;
    let fields: Vec<Value> = nothing.json()["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|e| e["field"].clone())
        .collect();
    for field in ["amount", "currency", "paymentMethod", "x"] {
        assert!(fields.contains(&json!(field)), "{field} in {fields:?}");
    }
    service.assert_no_rows("bad fields").await;
    assert_eq!(
        acme.pay("1").key("k").send().await.status,
        201,
        "the key is still good"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_sane_request_id_comes_back_and_every_problem_has_its_page(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let sane = acme.pay("1").header("x-request-id", "req-1").send().await;
    assert_eq!(sane.header("x-request-id"), Some("req-1"));
    let odd = acme.pay("1").header("x-request-id", "a b").send().await;
    assert_ne!(odd.header("x-request-id"), Some("a b"));
    for code in payonce::problem::Code::ALL {
        let page = acme.get(&format!("/problems/{}", code.slug())).await;
        assert_eq!(page.status, 200);
        assert!(String::from_utf8_lossy(&page.bytes).contains(code.title()));
    }
    acme.get("/problems/nothing")
        .await
        .assert_problem(404, "not-found", "fix-request");
    for path in ["/healthz", "/readyz", "/metrics"] {
        let anonymous = acme
            .client
            .get(format!("{}{path}", acme.url))
            .send()
            .await
            .expect("an answer");
        assert_eq!(anonymous.status(), 200, "{path}");
    }
    assert!(
        String::from_utf8_lossy(&acme.get("/metrics").await.bytes)
            .contains("payonce_http_requests_total")
    );
}

#[test]
fn the_table_of_problems_is_pinned() {
    let rows: Vec<String> = payonce::problem::Code::ALL
        .iter()
        .map(|code| {
            format!(
                "{} {} {}",
                code.status(),
                code.slug(),
                code.retry().as_str()
            )
        })
        .collect();
    assert_eq!(
        rows.join("\n"),
        "400 idempotency-key-missing fix-request
400 idempotency-key-invalid fix-request
400 malformed-json fix-request
401 unauthorized fix-request
402 payment-declined new-key
404 not-found fix-request
405 method-not-allowed fix-request
406 not-acceptable fix-request
408 request-timeout same-key
409 idempotency-key-in-use same-key
409 idempotency-key-expired no
409 payment-busy same-key
409 payment-state-conflict no
413 payload-too-large fix-request
415 unsupported-media-type fix-request
422 amount-too-large new-key
422 gateway-refused fix-request
422 idempotency-key-reused no
422 validation-failed fix-request
429 rate-limited same-key
503 database-unavailable same-key
503 gateway-misconfigured same-key
503 gateway-unavailable same-key
503 outcome-unknown same-key
503 overloaded same-key
500 internal-error same-key"
    );
}
