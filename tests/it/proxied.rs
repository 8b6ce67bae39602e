//! Two nodes behind `deploy/scaling/haproxy.cfg`: one is killed under load, and no client notices.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::support::deployed;
use crate::support::process::{Server, merchant, run};
use crate::support::service::{client, count};

const HAPROXY: &str = "/usr/sbin/haproxy";

/// Number of clients at once, and of payments each.
const CLIENTS: usize = 16;
const PAYMENTS: usize = 25;

/// A proxy in front of two nodes; it ends with the test.
struct Proxy {
    child: Child,
    url: String,
}

impl Proxy {
    async fn start(nodes: [&Server; 2]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let listen = free.local_addr().expect("an address").to_string();
        drop(free);
        let [a, b] = nodes.map(|node| node.url.trim_start_matches("http://"));
        let child = Command::new(HAPROXY)
            .arg("-f")
            .arg(deployed::path("scaling/haproxy.cfg"))
            .env("PAYONCE_PROXY_LISTEN", &listen)
            .env("PAYONCE_NODE_A", a)
            .env("PAYONCE_NODE_B", b)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("HAProxy starts");
        let proxy = Self {
            child,
            url: format!("http://{listen}"),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !proxy.is_ready().await {
            assert!(Instant::now() < deadline, "no node is ready");
            crate::support::pause().await;
        }
        proxy
    }

    async fn is_ready(&self) -> bool {
        let answer = client().get(format!("{}/readyz", self.url)).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_node_killed_under_load_costs_no_payment(pool: PgPoolOptions, db: PgConnectOptions) {
    if !Path::new(HAPROXY).exists() {
        crate::support::skipped::skip(&format!(
            "two nodes behind HAProxy: no {HAPROXY} here (apt-get install haproxy)"
        ));
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
    if Path::new(HAPROXY).exists() {
        let checked = run(Command::new(HAPROXY)
            .args(["-c", "-V", "-f"])
            .arg(deployed::path("scaling/haproxy.cfg"))
            .env("PAYONCE_PROXY_LISTEN", "127.0.0.1:8080")
            .env("PAYONCE_NODE_A", "127.0.0.1:8081")
            .env("PAYONCE_NODE_B", "127.0.0.1:8082"));
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(
            checked.status.success() && !said.contains("[WARNING]"),
            "{said}"
        );
    }
}
