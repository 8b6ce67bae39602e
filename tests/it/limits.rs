//! Limits that protect the others: too many requests of a merchant, and requests that never end.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use payonce::http::Limits;
use payonce::merchants::RateLimit;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, timeout};

use crate::support::service::{Answer, Service, Setup};

/// Far longer than any limit that is set here.
const PATIENCE: Duration = Duration::from_secs(20);

/// Short, so that the tests are quick; even the smallest allows a whole request on a loaded machine.
const SHORT: Duration = Duration::from_millis(500);

async fn service_with(db: &PgConnectOptions, limits: Limits) -> Service {
    let setup = Setup {
        limits,
        ..Setup::default()
    };
    Service::start_with(db, setup).await
}

async fn connect(service: &Service) -> TcpStream {
    let address = service.url.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("connected")
}

/// Connects with a receive buffer that does not grow: by itself it grows to some 30 MB, where the system allows that.
async fn connect_with_a_small_buffer(service: &Service) -> TcpStream {
    let address = service
        .url
        .strip_prefix("http://")
        .expect("an http address");
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("set");
    let connected = socket.connect(address.parse().expect("an address")).await;
    connected.expect("connected")
}

/// Sends a text, then single bytes until the service closes the connection. Returns what it answered before.
async fn trickle(mut stream: TcpStream, begin: &str, byte: &[u8]) -> String {
    stream.write_all(begin.as_bytes()).await.expect("sent");
    let (mut reading, mut writing) = stream.split();
    let trickling = async {
        let mut ticks = interval(Duration::from_millis(20));
        // Until the other end is closed.
        while writing.write_all(byte).await.is_ok() {
            ticks.tick().await;
        }
        std::future::pending::<()>().await;
    };
    let mut said = Vec::new();
    let reading = async {
        let mut part = [0; 4096];
        // A reset after the answer ends it as well.
        while let Ok(length @ 1..) = reading.read(&mut part).await {
            said.extend_from_slice(&part[..length]);
        }
    };
    let ended = async {
        tokio::select! {
            () = trickling => {}
            () = reading => {}
        }
    };
    let ended = timeout(PATIENCE, ended).await;
    let said = String::from_utf8(said).expect("text");
    assert!(ended.is_ok(), "{begin}: it is not closed after {said:?}");
    said
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_merchant_that_sends_too_many_requests_is_told_when_to_come_back(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let some = |number| NonZeroU32::new(number).expect("not zero");
    let rate_limit = Some(RateLimit {
        per_second: some(1),
        burst: some(4),
    });
    let setup = Setup {
        rate_limit,
        ..Setup::default()
    };
    let service = Service::start_with(&db, setup).await;
    let (acme, other) = (
        service.merchant("acme").await,
        service.merchant("other").await,
    );

    // A first request, and replays, which count like any other.
    let paid = acme.pay("10").key("k").send().await;
    assert_eq!(paid.status, 201);
    let mut replays = 0;
    let limited = loop {
        let again = acme.pay("10").key("k").send().await;
        if !again.replayed() {
            break again;
        }
        replays += 1;
        assert!(replays < 1000, "it is never limited");
    };
    assert!(
        replays >= 3,
        "the burst is four, and {replays} replays went"
    );
    assert_limited(&limited);
    assert_eq!(limited.header("idempotency-key"), Some("k"));
    // Nor is anything stored, or read.
    let fresh = until_limited(async || acme.pay("10").key("fresh").send().await).await;
    assert_limited(&fresh);
    let read = until_limited(async || acme.get("/v1/payments").await).await;
    assert_limited(&read);

    assert_eq!(other.pay("10").key("k").send().await.status, 201);
    for path in [
        "/healthz", "/readyz", "/metrics", "/healthz", "/readyz", "/metrics",
    ] {
        assert_eq!(acme.get(path).await.status, 200, "{path}");
    }
    let metrics = acme.get("/metrics").await;
    let metrics = String::from_utf8(metrics.bytes).expect("text");
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("payonce_rate_limited_total "));
    assert!(
        count.and_then(|count| count.parse::<u32>().ok()) >= Some(3),
        "{count:?}"
    );

    let deadline = Instant::now() + PATIENCE;
    while acme.pay("10").key("k").send().await.status != 201 {
        assert!(Instant::now() < deadline, "it is never let in again");
    }
}

/// On a loaded machine one may be accepted in between, but never all of them.
async fn until_limited(send: impl AsyncFn() -> Answer) -> Answer {
    for _ in 0..1000 {
        let answer = send().await;
        if answer.status == 429 {
            return answer;
        }
    }
    panic!("it is never limited");
}

#[track_caller]
fn assert_limited(answer: &Answer) {
    answer.assert_problem(429, "rate-limited", "same-key");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_head_that_trickles_is_ended(_: PgPoolOptions, db: PgConnectOptions) {
    let limits = Limits {
        head_timeout: SHORT,
        ..Limits::default()
    };
    let service = service_with(&db, limits).await;
    let stream = connect(&service).await;
    let said = trickle(stream, "GET /healthz HTTP/1.1\r\nX-Slow: ", b"x").await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_body_that_trickles_is_ended_and_its_key_is_still_good(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let limits = Limits {
        body_timeout: SHORT,
        ..Limits::default()
    };
    let service = service_with(&db, limits).await;
    let acme = service.merchant("acme").await;
    let head = |body: &str| {
        format!(
            "POST /v1/payments HTTP/1.1\r\nHost: it\r\nAuthorization: Bearer {}\r\nIdempotency-Key: slow\r\n\
             Content-Type: application/json\r\n{body}\r\n\r\n",
            acme.api_key
        )
    };
    for (body, byte) in [
        ("Content-Length: 60000", &b" "[..]),
        ("Transfer-Encoding: chunked", b"1\r\n \r\n"),
    ] {
        let said = trickle(connect(&service).await, &head(body), byte).await;
        assert!(said.starts_with("HTTP/1.1 408 "), "{body}: {said}");
        let (headers, problem) = said.split_once("\r\n\r\n").expect("a head");
        let headers = headers.to_ascii_lowercase();
        for header in [
            "connection: close",
            "retry-after: 1",
            "content-type: application/problem+json",
            "idempotency-key: slow",
        ] {
            assert!(headers.contains(header), "{header}: {headers}");
        }
        let problem: serde_json::Value = serde_json::from_str(problem).expect("JSON");
        assert_eq!(problem["code"], "request-timeout");
        assert_eq!(problem["retry"], "same-key");
    }
    // Nor without a valid API key: the refusal comes at once, without waiting for the body.
    let stranger = head("Transfer-Encoding: chunked").replace(&acme.api_key, "sk_nobody");
    let said = trickle(connect(&service).await, &stranger, b"1\r\n \r\n").await;
    assert!(said.starts_with("HTTP/1.1 401 "), "{said}");
    service.assert_no_rows("bodies that never came").await;
    assert_eq!(acme.pay("10").key("slow").send().await.status, 201);
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_idle_connection_is_closed(_: PgPoolOptions, db: PgConnectOptions) {
    let limits = Limits {
        keep_alive: SHORT,
        ..Limits::default()
    };
    let service = service_with(&db, limits).await;
    let mut stream = connect(&service).await;
    ask(&mut stream).await;
    answered(&mut stream).await;
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(
        read.is_ok_and(|read| read.is_ok()) && rest.is_empty(),
        "it is closed in order"
    );
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_head_without_end_is_refused(_: PgPoolOptions, db: PgConnectOptions) {
    let service = Service::start(&db).await;
    let large = format!("GET /healthz HTTP/1.1\r\nX-Large: {}", "x".repeat(200_000));
    let many = format!(
        "GET /healthz HTTP/1.1\r\n{}\r\n",
        "X-Many: x\r\n".repeat(97)
    );
    for head in [large, many] {
        let mut stream = connect(&service).await;
        // It may be refused before it is sent.
        drop(stream.write_all(head.as_bytes()).await);
        let mut said = [0; 12];
        let read = timeout(PATIENCE, stream.read_exact(&mut said)).await;
        assert!(read.is_ok(), "it is answered");
        assert_eq!(String::from_utf8_lossy(&said), "HTTP/1.1 431");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_worker_takes_so_many_connections_and_the_others_wait(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let limits = Limits {
        max_connections: 1,
        ..Limits::default()
    };
    let service = service_with(&db, limits).await;
    let workers = std::thread::available_parallelism()
        .expect("a number")
        .get();
    let mut streams = Vec::new();
    for _ in 0..workers {
        let mut stream = connect(&service).await;
        ask(&mut stream).await;
        answered(&mut stream).await;
        streams.push(stream);
    }
    let mut waiting = connect(&service).await;
    ask(&mut waiting).await;
    // By the time that the others were answered so often, it would have been as well.
    for stream in &mut streams {
        for _ in 0..50 {
            ask(stream).await;
            answered(stream).await;
        }
    }
    let mut said = [0; 1];
    let early = waiting.try_read(&mut said);
    assert!(early.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    drop(streams.pop());
    answered(&mut waiting).await;
}

async fn ask(stream: &mut TcpStream) {
    let request = b"GET /healthz HTTP/1.1\r\nHost: it\r\n\r\n";
    stream.write_all(request).await.expect("sent");
}

/// Reads one whole answer of `/healthz`.
async fn answered(stream: &mut TcpStream) {
    let mut said = Vec::new();
    while !said.ends_with(b"}") {
        let mut part = [0; 1024];
        let read = timeout(PATIENCE, stream.read(&mut part)).await;
        let length = read.expect("in time").expect("an answer");
        assert!(
            length > 0,
            "closed after {}",
            String::from_utf8_lossy(&said)
        );
        said.extend_from_slice(&part[..length]);
    }
    assert!(said.starts_with(b"HTTP/1.1 200 "));
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_connection_whose_peer_does_not_read_is_closed(_: PgPoolOptions, db: PgConnectOptions) {
    let limits = Limits {
        unread_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let service = service_with(&db, limits).await;
    let mut stream = connect_with_a_small_buffer(&service).await;
    // More than the buffers between them hold.
    let request = b"GET /openapi.json HTTP/1.1\r\nHost: it\r\n\r\n".repeat(100);
    stream.write_all(&request).await.expect("sent");
    let closed = async {
        // Each byte puts the system's next look at the peer's window off by some 200 ms, so they come less often.
        let mut ticks = interval(Duration::from_secs(1));
        // The head of a further request, which never ends. The system refuses it once the connection is gone.
        while stream.write_all(b"x").await.is_ok() {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, closed).await.expect("it is closed");
    // A client that reads is served as before.
    let mut reader = connect(&service).await;
    reader.write_all(&request).await.expect("sent");
    let mut said = Vec::new();
    while said.len() < 100 * payonce::http::openapi_json().len() {
        let mut part = vec![0; 1 << 16];
        let read = timeout(PATIENCE, reader.read(&mut part)).await;
        let length = read.expect("in time").expect("an answer");
        assert!(length > 0, "closed after {} bytes", said.len());
        said.extend_from_slice(&part[..length]);
    }
}
