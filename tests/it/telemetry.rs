//! What a process says of its requests: one line each in the log, and their traces to a collector.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::collector::{Collector, attribute};
use crate::support::process::{Server, error_line, merchant, program, run};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The spans of a trace below one of them, by name.
fn names_below(spans: &[Span], parent: &Span) -> Vec<String> {
    let mut below: Vec<&Span> = spans
        .iter()
        .filter(|span| span.parent_span_id == parent.span_id)
        .collect();
    below.sort_by_key(|span| span.start_time_unix_nano);
    below.iter().map(|span| span.name.clone()).collect()
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_request_is_traced_through_claim_gateway_and_settle(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let collector = Collector::start();
    let mut server = Server::start(
        &db,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()),
            // Nothing goes before the process stops: what is left must not be lost then.
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ],
    );
    let acme = merchant(&db, &server.url, "acme");
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let paid = acme
        .pay("10")
        .key("k")
        .header("traceparent", &traceparent)
        .send()
        .await;
    assert_eq!(paid.status, 201);
    let refunds = format!("/v1/payments/{}/refunds", paid.text("id"));
    assert_eq!(
        acme.post(&refunds, json!({})).key("r").send().await.status,
        201
    );
    assert_eq!(acme.pay("10").key("k").send().await.status, 201);
    server.signal(Signal::SIGTERM);
    assert!(server.ended().await.success());

    let spans = collector.spans();
    let served = |name: &str| -> Vec<&Span> {
        spans
            .iter()
            .filter(|span| span.name == name && span.kind == SpanKind::Server as i32)
            .collect()
    };
    let creates = served("POST /v1/payments");
    assert_eq!(creates.len(), 2);
    let first = creates[0];
    assert_eq!(hex::encode(&first.trace_id), TRACE);
    assert_eq!(hex::encode(&first.parent_span_id), PARENT);
    assert_eq!(
        attribute(first, "http.route").as_deref(),
        Some("/v1/payments")
    );
    assert_eq!(
        attribute(first, "http.response.status_code").as_deref(),
        Some("201")
    );
    assert_eq!(names_below(&spans, first), ["claim", "gateway", "settle"]);
    for span in spans
        .iter()
        .filter(|span| span.parent_span_id == first.span_id)
    {
        assert_eq!(hex::encode(&span.trace_id), TRACE, "{}", span.name);
        assert_eq!(span.name == "gateway", span.kind == SpanKind::Client as i32);
        if span.name == "gateway" {
            assert_eq!(
                attribute(span, "payonce.outcome").as_deref(),
                Some("success")
            );
        }
    }
    let refund = served("POST /v1/payments/{id}/refunds")[0];
    assert_ne!(
        hex::encode(&refund.trace_id),
        TRACE,
        "it said nothing of a trace"
    );
    assert!(refund.parent_span_id.is_empty());
    assert_eq!(names_below(&spans, refund), ["claim", "gateway", "settle"]);
    assert_eq!(
        names_below(&spans, creates[1]),
        <[&str; 0]>::default(),
        "a replay calls nobody"
    );

    let requests = collector.requests();
    let resource = requests[0].resource_spans[0]
        .resource
        .as_ref()
        .expect("a resource");
    assert!(format!("{resource:?}").contains("StringValue(\"payonce\")"));
    let sent = String::from_utf8_lossy(&collector.bytes()).into_owned();
    for secret in [&*acme.api_key, "4242424242424242", "a@example.com"] {
        assert!(!sent.contains(secret), "{secret}");
    }
    assert!(!server.log().contains("payonce::phases"));
}

/// The names of a process's threads.
fn threads(server: &Server) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.id())).expect("its threads");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .collect()
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn without_a_collector_nothing_is_started(_: PgPoolOptions, db: PgConnectOptions) {
    let exports = |server: &Server| {
        threads(server)
            .iter()
            .any(|name| name.starts_with("OpenTelemetry"))
    };
    let collector = Collector::start();
    let silent = Server::start(&db, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]);
    assert!(!exports(&silent));
    let traced = Server::start(&db, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())]);
    assert!(exports(&traced));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_collector_that_is_none_is_said_in_one_line(_: PgPoolOptions, db: PgConnectOptions) {
    let mut serve = program("payonce", &db);
    serve
        .arg("serve")
        .env("PAYONCE_LISTEN", "127.0.0.1:0")
        .env("PAYONCE_FINGERPRINT_SECRET", "a secret of the tests")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "not a url");
    let output = run(&mut serve);
    assert_eq!(output.status.code(), Some(2));
    assert!(error_line(&output).contains("OTEL_EXPORTER_OTLP_ENDPOINT"));
}

/// The log, once it has this: its lines come through a pipe, in order.
async fn logged(server: &Server, text: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let log = server.log();
        if log.contains(text) {
            return log;
        }
        assert!(Instant::now() < deadline, "no {text} in {log}");
        crate::support::pause().await;
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn each_request_is_one_line(_: PgPoolOptions, db: PgConnectOptions) {
    let server = Server::start(&db, &[]);
    let acme = merchant(&db, &server.url, "acme");
    let pay = |key: &str, id: &str| acme.pay("10").key(key).header("x-request-id", id);
    pay("k", "first").send().await;
    pay("k", "again").send().await;
    acme.pay("11")
        .key("k")
        .header("x-request-id", "reused")
        .send()
        .await;
    pay("k", "nobody").without("authorization").send().await;
    acme.post("/nowhere", json!({}))
        .header("x-request-id", "nowhere")
        .send()
        .await;
    acme.post("/healthz", json!({}))
        .header("x-request-id", "method")
        .send()
        .await;

    let log = logged(&server, "\"request_id\":\"method\"").await;
    for (id, status, route, merchant_id, idempotency) in [
        ("first", 201, "/v1/payments", json!("acme"), json!("miss")),
        ("again", 201, "/v1/payments", json!("acme"), json!("hit")),
        (
            "reused",
            422,
            "/v1/payments",
            json!("acme"),
            json!("mismatch"),
        ),
        ("nobody", 401, "/v1/payments", Value::Null, Value::Null),
        ("nowhere", 404, "unmatched", Value::Null, Value::Null),
        ("method", 405, "/healthz", Value::Null, Value::Null),
    ] {
        let lines: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Value| line["span"]["request_id"] == id)
            .collect();
        let [line] = &lines[..] else {
            panic!("{id}: {lines:?}");
        };
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["method"], "POST");
        assert_eq!(
            (&line["status"], &line["route"]),
            (&json!(status), &json!(route)),
            "{id}"
        );
        assert_eq!(line["span"]["merchant_id"], merchant_id, "{id}");
        assert_eq!(line["span"]["idempotency"], idempotency, "{id}");
        assert!(
            line["duration_ms"].as_f64().is_some_and(|took| took > 0.0),
            "{id}"
        );
    }
}

/// What a port scan, a TLS client or a broken program sends to a port of HTTP.
const NO_HTTP: [&[u8]; 5] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nContent-Length: x\r\nHost: it\r\n\r\n",
    b"\x00\r\n\r\n",
];

async fn send_no_http(server: &Server) {
    for bytes in NO_HTTP {
        let address = server.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(bytes).await.expect("sent");
        let mut said = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said));
        drop(read.await.expect("it is closed"));
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.starts_with("HTTP/1.1 400 "), "{bytes:?}: {said}");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn what_is_no_http_is_no_error_of_the_service(_: PgPoolOptions, db: PgConnectOptions) {
    let server = Server::start(&db, &[]);
    let debugged = Server::start(&db, &[("PAYONCE_LOG", "info,actix_http=debug")]);
    for server in [&server, &debugged] {
        send_no_http(server).await;
        let acme = merchant(&db, &server.url, &format!("m{}", server.id()));
        acme.get("/healthz").await;
        logged(server, "/healthz").await;
    }
    let log = server.log();
    assert!(
        !log.contains("\"ERROR\"") && !log.contains("stream error"),
        "{log}"
    );
    // Whoever looks for them finds them.
    logged(&debugged, "stream error").await;
}
