//! Malformed requests, byte by byte: each gets an answer of the table, and none a 500.

use std::net::SocketAddr;

use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::service::{Merchant, Service, payment};

/// An answer, as it came over the wire.
struct Raw {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Raw {
    fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(have, _)| have == name);
        header.map(|(_, value)| value.as_str())
    }

    /// This problem, in full.
    #[track_caller]
    fn assert_problem(&self, what: &str, status: u16, slug: &str) {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{what}: {body}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{what}: {body}"
        );
        let json: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(json["code"], slug, "{what}");
        assert_eq!(json["retry"], "fix-request", "{what}");
        assert_eq!(json["status"], status, "{what}");
        assert!(!body.contains("424242"), "{what}: {body}");
    }
}

async fn exchange(merchant: &Merchant, request: &[u8]) -> Raw {
    let address: SocketAddr = merchant.url["http://".len()..].parse().expect("an address");
    let mut socket = TcpStream::connect(address).await.expect("connected");
    socket.write_all(request).await.expect("sent");
    let mut bytes = Vec::new();
    // A server that refuses early may close the connection before it has read everything.
    drop(socket.read_to_end(&mut bytes).await);
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(&bytes).expect("an HTTP answer") else {
        panic!("half an answer: {}", String::from_utf8_lossy(&bytes));
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Raw {
        status: response.code.expect("a status"),
        headers: response
            .headers
            .iter()
            .map(|header| (header.name.to_ascii_lowercase(), text(header.value)))
            .collect(),
        body: bytes[head..].to_vec(),
    }
}

/// A request with this method, target, further headers and body; the merchant's API key and the length are added.
async fn send(merchant: &Merchant, line: &[u8], headers: &[&[u8]], body: &[u8]) -> Raw {
    let mut request = [line, b" HTTP/1.1\r\nhost: payonce\r\nconnection: close\r\n"].concat();
    request.extend_from_slice(format!("authorization: Bearer {}\r\n", merchant.api_key).as_bytes());
    for header in headers {
        request.extend_from_slice(header);
        request.extend_from_slice(b"\r\n");
    }
    if !body.is_empty() {
        let about = format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        request.extend_from_slice(about.as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    exchange(merchant, &request).await
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn odd_keys_are_refused(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let body = payment("1").to_string();
    for (what, key) in [
        ("non-ASCII in UTF-8", &b"schl\xc3\xbcssel"[..]),
        ("non-ASCII in Latin-1", b"schl\xfcssel"),
        ("non-ASCII in quotes", b"\"schl\xc3\xbcssel\""),
        ("a tab", b"a\tb"),
        ("a space in quotes", b"\"a b\""),
        ("nothing in quotes", b"\"\""),
        ("a list of two", b"\"a\", \"b\""),
        ("a parameter", b"\"a\";v=1"),
        ("an escape of nothing", b"\"a\\b\""),
    ] {
        let header = [b"idempotency-key: ", key].concat();
        let answer = send(&acme, b"POST /v1/payments", &[&header], body.as_bytes()).await;
        answer.assert_problem(what, 400, "idempotency-key-invalid");
        service.assert_no_rows(what).await;
    }
    let keys: [&[u8]; 2] = [b"idempotency-key: a", b"Idempotency-Key: a"];
    let answer = send(&acme, b"POST /v1/payments", &keys, body.as_bytes()).await;
    answer.assert_problem("the same key twice", 400, "idempotency-key-invalid");
    service.assert_no_rows("the same key twice").await;
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn odd_bodies_are_refused(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let good = payment("AMOUNT").to_string();
    let with = |amount: &str| good.replace("\"AMOUNT\"", amount).into_bytes();
    let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
    let in_name = |text: &[u8]| {
        let (before, after) = good.split_once("\"A\"").expect("the customer's name");
        let before = before.replace("\"AMOUNT\"", "1");
        [before.as_bytes(), b"\"", text, b"\"", after.as_bytes()].concat()
    };
    let (malformed, invalid) = ((400, "malformed-json"), (422, "validation-failed"));
    for (what, body, (status, slug)) in [
        ("NaN", with("NaN"), malformed),
        ("Infinity", with("-Infinity"), malformed),
        ("a leading zero", with("01"), malformed),
        ("a bare fraction", with(".5"), malformed),
        ("hexadecimal", with("0x10"), malformed),
        ("1e400", with("1e400"), invalid),
        ("1e-400", with("1e-400"), invalid),
        ("a huge exponent", with("1e99999999999999999999"), invalid),
        ("40 digits", with(&"9".repeat(40)), invalid),
        (
            "40 decimals",
            with(&format!("1.{}", "0".repeat(39) + "1")),
            invalid,
        ),
        ("a zero", with("0.00"), invalid),
        ("a negative zero", with("-0"), invalid),
        ("a plus", with("\"+1\""), invalid),
        ("spaces", with("\" 1\""), invalid),
        ("a comma", with("\"1,00\""), invalid),
        ("Arabic digits", with("\"١\""), invalid),
        ("an empty text", with("\"\""), invalid),
        ("a list", with("[1]"), invalid),
        ("an object", with("{\"value\": 1}"), invalid),
        ("deep lists in a field", with(&deep(20_000)), invalid),
        (
            "deep lists, unended",
            "[".repeat(20_000).into_bytes(),
            malformed,
        ),
        (
            "deep objects, unended",
            "{\"a\":".repeat(10_000).into_bytes(),
            malformed,
        ),
        ("a lone high surrogate", in_name(b"\\ud800"), malformed),
        ("a lone low surrogate", in_name(b"\\udc00"), malformed),
        (
            "surrogates in the wrong order",
            in_name(b"\\udc00\\ud800"),
            malformed,
        ),
        ("half a surrogate pair", in_name(b"\\ud83d x"), malformed),
        ("a NUL, escaped", in_name(b"\\u0000"), invalid),
        ("a NUL, as it is", in_name(b"\0"), malformed),
        ("no UTF-8", in_name(b"\xff\xfe"), malformed),
        ("an overlong NUL", in_name(b"\xc0\x80"), malformed),
        (
            "a byte order mark",
            [b"\xef\xbb\xbf", with("1").as_slice()].concat(),
            malformed,
        ),
        ("two objects", [with("1"), with("1")].concat(), malformed),
        (
            "a comment",
            [b"/* */", with("1").as_slice()].concat(),
            malformed,
        ),
        ("a NUL alone", b"\0".to_vec(), malformed),
        ("only white space", b" \r\n\t".to_vec(), malformed),
    ] {
        let answer = send(&acme, b"POST /v1/payments", &[b"idempotency-key: k"], &body).await;
        answer.assert_problem(what, status, slug);
        service.assert_no_rows(what).await;
    }
    let exact = send(
        &acme,
        b"POST /v1/payments",
        &[b"idempotency-key: k"],
        &with("9007199254740.93"),
    )
    .await;
    assert_eq!(exact.status, 201, "the key is still good");
    let exact: Value = serde_json::from_slice(&exact.body).expect("JSON");
    assert_eq!(exact["amount"], "9007199254740.93");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_body_of_64_kib_is_the_largest(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let sized = |size: usize| {
        let mut body = payment("1").to_string().into_bytes();
        body.resize(size, b' ');
        body
    };
    let chunked = |body: &[u8]| {
        let mut request = format!(
            "POST /v1/payments HTTP/1.1\r\nhost: payonce\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
             idempotency-key: chunked\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            acme.api_key
        )
        .into_bytes();
        for chunk in body.chunks(4096) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    };
    let most = 64 * 1024;
    for (what, size) in [("a byte more", most + 1), ("70 KiB", 70 * 1024)] {
        let answer = send(
            &acme,
            b"POST /v1/payments",
            &[b"idempotency-key: k"],
            &sized(size),
        )
        .await;
        answer.assert_problem(what, 413, "payload-too-large");
        let answer = exchange(&acme, &chunked(&sized(size))).await;
        answer.assert_problem("chunks", 413, "payload-too-large");
        service.assert_no_rows(what).await;
    }
    let answer = send(
        &acme,
        b"POST /v1/payments",
        &[b"idempotency-key: k"],
        &sized(most),
    )
    .await;
    assert_eq!(answer.status, 201);
    assert_eq!(exchange(&acme, &chunked(&sized(most))).await.status, 201);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn odd_paths_and_queries_are_refused(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let (absent, invalid) = ((404, "not-found"), (422, "validation-failed"));
    for (line, (status, slug)) in [
        (&b"GET /v1/payments/%00"[..], absent),
        (b"GET /v1/payments/pay_%00", absent),
        (b"GET /v1/payments/%ff", absent),
        (b"GET /v1/payments/%zz", absent),
        (b"GET /v1/payments/", absent),
        (b"GET /v1/payments/%2e%2e", absent),
        (b"GET /v1/payments/%00/refunds", absent),
        (b"GET /v1/payments/%ff/refunds", absent),
        (b"GET /v1/refunds/%00", absent),
        (b"GET /v1/refunds/%ff", absent),
        (b"GET /v1/idempotency-keys/create_payment/%00", absent),
        (b"GET /v1/idempotency-keys/create_payment/%ff", absent),
        (b"GET /v1/idempotency-keys/create_order/k", absent),
        (b"GET /v1/idempotency-keys/%00/k", absent),
        (b"GET /problems/%00", absent),
        (b"GET /problems/%ff", absent),
        (b"GET /v2/payments", absent),
        (b"GET /v1/payments?limit=0", invalid),
        (b"GET /v1/payments?limit=101", invalid),
        (b"GET /v1/payments?limit=1e1", invalid),
        (b"GET /v1/payments?limit=", invalid),
        (b"GET /v1/payments?limit=1&limit=2", invalid),
        (b"GET /v1/payments?state=success", invalid),
        (b"GET /v1/payments?cursor=%00", invalid),
        (b"GET /v1/payments?cursor=pay_%ff", invalid),
        (b"GET /v1/payments?customerId=%00", invalid),
        (b"GET /v1/payments?idempotencyKey=%00", invalid),
        (b"GET /v1/payments?4242424242424242=1", invalid),
    ] {
        let what = String::from_utf8_lossy(line).into_owned();
        let answer = send(&acme, line, &[], b"").await;
        answer.assert_problem(&what, status, slug);
    }
    for line in [
        &b"POST /v1/payments/%00/capture"[..],
        b"POST /v1/payments/%00/cancel",
        b"POST /v1/payments/%00/refunds",
        b"POST /v1/payments/%ff/refunds",
    ] {
        let what = String::from_utf8_lossy(line).into_owned();
        let answer = send(&acme, line, &[b"idempotency-key: k"], b"{}").await;
        answer.assert_problem(&what, 404, "not-found");
        service.assert_no_rows(&what).await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_path_names_the_methods_that_it_knows(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    for (path, allowed) in [
        ("/v1/payments", "GET, HEAD, POST"),
        ("/v1/payments/pay_x", "GET, HEAD"),
        ("/v1/payments/pay_x/capture", "POST"),
        ("/v1/payments/pay_x/cancel", "POST"),
        ("/v1/payments/pay_x/refunds", "GET, HEAD, POST"),
        ("/v1/refunds/ref_x", "GET, HEAD"),
        ("/v1/idempotency-keys/create_payment/k", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/problems/not-found", "GET, HEAD"),
    ] {
        for method in ["DELETE", "PUT", "PATCH", "BREW"] {
            let line = format!("{method} {path}");
            let answer = send(&acme, line.as_bytes(), &[], b"").await;
            answer.assert_problem(&line, 405, "method-not-allowed");
            assert_eq!(answer.header("allow"), Some(allowed), "{line}");
        }
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_may_be_sent_and_accepted(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let body = payment("1").to_string();
    let post = |accept: &'static str| {
        let (acme, body) = (&acme, body.as_bytes());
        async move {
            let accept = format!("accept: {accept}");
            let headers: [&[u8]; 2] = [accept.as_bytes(), b"idempotency-key: k"];
            send(acme, b"POST /v1/payments", &headers, body).await
        }
    };
    for refused in [
        "text/html",
        "image/*, text/*;q=0.5",
        "application/json;q=0",
        "json",
        "application/xml",
    ] {
        let answer = post(refused).await;
        answer.assert_problem(refused, 406, "not-acceptable");
        service.assert_no_rows(refused).await;
    }
    for read in [
        "*/*",
        "application/*",
        "text/html, */*;q=0.1",
        "Application/JSON; charset=utf-8",
        "application/problem+json",
    ] {
        assert_eq!(post(read).await.status, 201, "{read}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn the_bearer_scheme_is_read_as_it_may_be_written(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let globex = service.merchant("globex").await;
    let get = |authorization: String| {
        let acme = &acme;
        let request = format!(
            "GET /v1/payments HTTP/1.1\r\nhost: payonce\r\nconnection: close\r\n{authorization}\r\n"
        );
        async move { exchange(acme, request.as_bytes()).await }
    };
    let (ours, theirs) = (&acme.api_key, &globex.api_key);
    for good in [
        format!("authorization: bearer {ours}\r\n"),
        format!("Authorization: BEARER  {ours}\r\n"),
    ] {
        assert_eq!(get(good).await.status, 200);
    }
    for bad in [
        String::new(),
        "authorization: Bearer\r\n".to_owned(),
        "authorization: Bearer \r\n".to_owned(),
        format!("authorization: {ours}\r\n"),
        format!("authorization: Basic {ours}\r\n"),
        format!("authorization: Bearer {ours}x\r\n"),
        format!("authorization: Bearer {}\r\n", ours.to_uppercase()),
        format!("authorization: Bearer {ours}, Bearer {theirs}\r\n"),
        format!("authorization: Bearer {ours}\r\nauthorization: Bearer {theirs}\r\n"),
        "authorization: Bearer \u{fc}\r\n".to_owned(),
    ] {
        let answer = get(bad.clone()).await;
        answer.assert_problem(&bad, 401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(answer.header("x-request-id").is_some());
    }
}

/// Every path that answers GET.
const READ: [&str; 12] = [
    "/v1/payments",
    "/v1/payments/PAID",
    "/v1/payments/PAID/refunds",
    "/v1/refunds/ref_x",
    "/v1/idempotency-keys/create_payment/k",
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/docs/payonce.css",
    "/problems",
    "/problems/not-found",
];

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn head_is_get_without_the_body(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let paid = acme.pay("10").key("k").send().await.text("id");
    for path in READ {
        let path = path.replace("PAID", &paid);
        let got = send(&acme, format!("GET {path}").as_bytes(), &[], b"").await;
        let head = send(&acme, format!("HEAD {path}").as_bytes(), &[], b"").await;
        assert_eq!(head.status, got.status, "{path}");
        assert!(head.body.is_empty() && !got.body.is_empty(), "{path}");
        for header in ["content-type", "content-length"] {
            assert_eq!(
                head.header(header),
                got.header(header),
                "{header} of {path}"
            );
        }
        assert!(head.header("x-request-id").is_some(), "{path}");
    }
    let scraped = send(&acme, b"HEAD /metrics", &[], b"").await;
    assert_eq!((scraped.status, scraped.body.len()), (200, 0));
    let unknown = send(&acme, b"HEAD /v2/payments", &[], b"").await;
    assert_eq!((unknown.status, unknown.body.len()), (404, 0));
    let posted = send(&acme, b"HEAD /v1/payments/pay_x/capture", &[], b"").await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("POST")));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_compressed_body_is_refused_and_told_what_is_taken(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let service = Service::start(&db).await;
    let acme = service.merchant("acme").await;
    let body = payment("1").to_string();
    for coding in ["gzip", "GZIP", "br", "identity, gzip", "x-gzip", ""] {
        let coding = format!("content-encoding: {coding}");
        let headers: [&[u8]; 2] = [coding.as_bytes(), b"idempotency-key: k"];
        let answer = send(&acme, b"POST /v1/payments", &headers, body.as_bytes()).await;
        answer.assert_problem(&coding, 415, "unsupported-media-type");
        assert_eq!(
            answer.header("accept-encoding"),
            Some("identity"),
            "{coding}"
        );
        assert_eq!(answer.header("idempotency-key"), Some("k"), "{coding}");
        service.assert_no_rows(&coding).await;
    }
    let headers: [&[u8]; 2] = [b"content-encoding: Identity", b"idempotency-key: k"];
    let answer = send(&acme, b"POST /v1/payments", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 201);
}
