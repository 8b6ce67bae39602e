//! Two nodes behind `deploy/scaling/haproxy.cfg`: one is killed under load, and no client notices.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::deployed;
use crate::support::haproxy::{self, Proxy};
use crate::support::process::{Server, merchant, run};
use crate::support::service::{Merchant, count, payment};

/// Number of clients at once, and of payments each.
const CLIENTS: usize = 16;
const PAYMENTS: usize = 25;

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_node_killed_under_load_costs_no_payment(pool: PgPoolOptions, db: PgConnectOptions) {
    if !haproxy::is_here("two nodes behind HAProxy") {
        return;
    }
    let pool = pool.connect_with(db.clone()).await.expect("a pool");
    let settings = [
        ("PAYONCE_SIMULATED_GATEWAY_LATENCY", "20ms"),
        ("PAYONCE_LOCK_TIMEOUT", "1s"),
    ];
    let mut dying = Server::start(&db, &settings);
    let living = Server::start(&db, &settings);
    let proxy = Proxy::start([&dying, &living]).await;
    let acme = merchant(&db, &proxy.url, "acme");

    // Clients that never retry: all retries are the proxy's.
    let load = tokio::spawn(join_all((0..CLIENTS).map(move |client| {
        let acme = acme.clone();
        async move {
            let mut answers = Vec::new();
            for payment in 0..PAYMENTS {
                let request = acme.pay("10").key(&format!("{client}-{payment}"));
                answers.push(
                    request
                        .try_send()
                        .await
                        .map(|answer| answer.status.as_u16()),
                );
            }
            answers
        }
    })));
    let deadline = Instant::now() + Duration::from_secs(20);
    while count(&pool, "payments").await < 100 {
        assert!(Instant::now() < deadline, "there is no load");
        crate::support::pause().await;
    }
    dying.kill();
    let in_the_middle = count(&pool, "unsettled_keys").await;
    assert!(in_the_middle > 0, "it was at work");
    for answer in load.await.expect("no panic").into_iter().flatten() {
        assert_eq!(answer.expect("an answer"), 201);
    }
    let payments = i64::try_from(CLIENTS * PAYMENTS).expect("a number");
    assert_eq!(count(&pool, "payments").await, payments);
    assert_eq!(count(&pool, "unsettled_keys").await, 0);
    let taken_over: i64 =
        sqlx::query_scalar("select count(*) from idempotency_keys where attempt > 1")
            .fetch_one(&pool)
            .await
            .expect("a count");
    assert!(taken_over > 0, "work went over to the other node");
    pool.close().await;
}

#[test]
fn the_proxy_sends_only_what_is_safe_to_repeat() {
    let config = deployed::read("scaling/haproxy.cfg");
    let rule =
        "http-request disable-l7-retry unless METH_GET or { req.hdr(idempotency-key) -m found }";
    assert!(config.contains(rule));
    if haproxy::is_here("HAProxy's check of its configuration") {
        let checked = run(haproxy::command(
            "127.0.0.1:8080",
            "127.0.0.1:8405",
            ["127.0.0.1:8081", "127.0.0.1:8082"],
        )
        .args(["-c", "-V"]));
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(
            checked.status.success() && !said.contains("[WARNING]"),
            "{said}"
        );
    }
}

/// A request whose head is at the proxy while its body is still to come.
struct HalfSent {
    stream: TcpStream,
    body: String,
}

impl HalfSent {
    async fn head(proxy: &Proxy, merchant: &Merchant, key: &str) -> Self {
        let body = payment("10").to_string();
        let host = proxy.url.trim_start_matches("http://");
        let head = format!(
            "POST /v1/payments HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n\
             Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            merchant.api_key,
            body.len()
        );
        let mut stream = TcpStream::connect(host).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("a head");
        Self { stream, body }
    }

    /// Sends the body, and returns the answer.
    async fn finish(mut self) -> String {
        let sent = self.stream.write_all(self.body.as_bytes()).await;
        let mut answer = String::new();
        let read = self.stream.read_to_string(&mut answer).await;
        format!("{sent:?} {read:?} {answer}")
    }
}

/// Clients send head and body apart. A node that has the head alone, and dies, must not take the request with it.
#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_node_killed_between_head_and_body_costs_no_payment(
    pool: PgPoolOptions,
    db: PgConnectOptions,
) {
    if !haproxy::is_here("a node that dies between head and body") {
        return;
    }
    let pool = pool.connect_with(db.clone()).await.expect("a pool");
    let settings = [("PAYONCE_SIMULATED_GATEWAY_LATENCY", "1ms")];
    let mut dying = Server::start(&db, &settings);
    let living = Server::start(&db, &settings);
    let proxy = Proxy::start([&dying, &living]).await;
    let acme = merchant(&db, &proxy.url, "acme");
    // Several for each node.
    let mut halves = Vec::new();
    for client in 0..8 {
        halves.push(HalfSent::head(&proxy, &acme, &format!("half-{client}")).await);
    }
    // The proxy has answered later requests, so it has read the heads.
    for _ in 0..20 {
        assert_eq!(acme.get("/healthz").await.status, 200);
    }
    dying.kill();
    for half in halves {
        let answer = half.finish().await;
        assert!(answer.contains("HTTP/1.1 201 "), "{answer}");
    }
    assert_eq!(count(&pool, "payments").await, 8);
    pool.close().await;
}
