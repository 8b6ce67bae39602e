//! An embedding service's answer is sent unchanged, the first time and each time after, or is refused.

use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse, HttpServer};
use payonce::database::pool_options;
use payonce::http::answer_response;
use payonce::idempotency::{
    Engine, FingerprintSecrets, Gate, IdempotencyConfig, IdempotencyError, IdempotencyKey,
    InvalidResponse, Outcome, Plan, ScopedKey, StoredResponse, Transaction, Wait,
};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::service::count;

async fn open(db: &PgConnectOptions) -> (Engine, PgPool) {
    let pool = pool_options().max_connections(5);
    let pool = pool.connect_with(db.clone()).await.expect("a pool");
    let secrets = FingerprintSecrets::new("secret");
    let engine = Engine::start(pool.clone(), IdempotencyConfig::default(), &secrets)
        .await
        .expect("a fit pool");
    (engine, pool)
}

fn scope(key: &str) -> ScopedKey {
    ScopedKey::new("acme", "answer", IdempotencyKey::new(key).expect("a key"))
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn answers() -> Vec<StoredResponse> {
    let of_a_kind = vec![
        header("set-cookie", "a=1; Path=/"),
        header("link", "<https://example.com/2>; rel=next"),
        header("Set-Cookie", "b=2; Path=/"),
        header("link", "<https://example.com/1>; rel=prev"),
        header("x-empty", ""),
        header("etag", "\"a\tb\""),
    ];
    let parts = [
        (200, of_a_kind, &b"{\"a\":1}"[..]),
        (200, Vec::new(), b""),
        (
            299,
            vec![header("content-type", "application/octet-stream")],
            b"\0\xff\r\n\r\n",
        ),
        (204, vec![header("location", "/a")], b""),
        (205, Vec::new(), b""),
        (304, vec![header("etag", "\"a\"")], b""),
        (
            404,
            vec![header("content-type", "text/plain; charset=utf-8")],
            "é".as_bytes(),
        ),
        (599, Vec::new(), b"last"),
    ];
    let answer = |(status, headers, body)| StoredResponse::new(status, headers, body);
    parts
        .map(|(status, headers, body): (_, _, &'static [u8])| {
            answer((status, headers, body)).expect("an answer")
        })
        .into()
}

/// Answers `/N` by the answer of that number, under its own key.
async fn handle(engine: Data<Engine>, number: web::Path<usize>) -> HttpResponse {
    let number = number.into_inner();
    let work = async move |_: Transaction| {
        Ok::<_, sqlx::Error>(Outcome::Completed(answers()[number].clone()))
    };
    let answer = engine
        .execute(&scope(&format!("k{number}")), &number, work)
        .await;
    answer_response(answer.expect("an answer"))
}

/// One answer as it was received: its status line, its headers by name, and its body.
#[derive(Debug, PartialEq, Eq)]
struct Wire {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Wire {
    async fn read(address: std::net::SocketAddr, number: usize) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("GET /{number} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await.expect("read");
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.expect("a head");
        let head = String::from_utf8(raw[..end].to_vec()).expect("text");
        let mut lines = head.lines();
        let status = lines.next().expect("a status line").to_owned();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').expect("a header");
            let value = value.strip_prefix(' ').unwrap_or(value);
            (name.to_ascii_lowercase(), value.to_owned())
        });
        let mut headers: Vec<_> = headers.filter(|(name, _)| name != "date").collect();
        // Those of one name stay in their order; among names there is none.
        headers.sort_by(|one, other| one.0.cmp(&other.0));
        Self {
            status,
            headers,
            body: raw[end + 4..].to_vec(),
        }
    }

    fn values(&self, name: &str) -> Vec<&str> {
        let those = self.headers.iter().filter(|(is, _)| is == name);
        those.map(|(_, value)| value.as_str()).collect()
    }

    /// Removes the header that distinguishes a replay from a first answer.
    fn take_replayed(&mut self) -> String {
        let at = self
            .headers
            .iter()
            .position(|(name, _)| name == "idempotent-replayed");
        self.headers.remove(at.expect("it is told")).1
    }
}

fn assert_is(wire: &Wire, stored: &StoredResponse) {
    let status = format!("HTTP/1.1 {} ", stored.status);
    assert!(wire.status.starts_with(&status), "{wire:?}");
    assert_eq!(wire.body, stored.body, "{wire:?}");
    for (name, _) in &stored.headers {
        let those = stored.headers.iter();
        let those = those.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        let expected: Vec<&str> = those.map(|(_, value)| value.as_str()).collect();
        assert_eq!(wire.values(&name.to_ascii_lowercase()), expected);
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_answer_is_the_same_on_the_wire_first_and_each_time(
    _: PgPoolOptions,
    db: PgConnectOptions,
) {
    let mut first = Vec::new();
    // In the second round only the database has the answers; in each round the second answer comes from memory.
    for round in 0..2 {
        let (engine, pool) = open(&db).await;
        let served = engine.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(Data::new(served.clone()))
                .route("/{number}", web::get().to(handle))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .expect("a port");
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        let serving = tokio::spawn(server);
        for (number, stored) in answers().iter().enumerate() {
            for time in 0..2 {
                let mut wire = Wire::read(address, number).await;
                let is_first = round == 0 && time == 0;
                assert_eq!(wire.take_replayed(), (!is_first).to_string());
                assert_is(&wire, stored);
                if is_first {
                    first.push(wire);
                } else {
                    assert_eq!(wire, first[number], "{round}.{time}");
                }
            }
        }
        handle.stop(false).await;
        serving.await.expect("no panic").expect("served");
        engine.finish().await;
        pool.close().await;
    }
}

/// Each is refused for another reason, and could be made without [`StoredResponse::new`].
fn unsendable() -> Vec<(StoredResponse, InvalidResponse)> {
    let json = |status| StoredResponse::json(status, &1).expect("JSON");
    vec![
        (json(99), InvalidResponse::Status(99)),
        (json(101), InvalidResponse::Status(101)),
        (json(600), InvalidResponse::Status(600)),
        (json(204), InvalidResponse::BodyNotAllowed(204)),
        (
            json(200).with_header("a b", "c"),
            InvalidResponse::HeaderName("a b".to_owned()),
        ),
        (
            json(200).with_header("a", "b\r\nset-cookie: c"),
            InvalidResponse::HeaderValue("a".to_owned()),
        ),
        (
            json(200).with_header("Content-Length", "7"),
            InvalidResponse::HeaderOfTheMessage("Content-Length".to_owned()),
        ),
    ]
}

#[track_caller]
fn assert_refused<T>(result: Result<T, IdempotencyError>, expected: &InvalidResponse) {
    match result {
        Err(IdempotencyError::InvalidResponse(why)) => assert_eq!(why, *expected),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("stored: {expected}"),
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn an_answer_that_could_not_be_sent_is_not_stored(_: PgPoolOptions, db: PgConnectOptions) {
    let (engine, pool) = open(&db).await;
    for (answer, why) in unsendable() {
        let made = answer.clone();
        let work = async move |_: Transaction| Ok::<_, sqlx::Error>(Outcome::Completed(made));
        assert_refused(engine.execute(&scope("once"), &1, work).await, &why);
        let made = answer.clone();
        let plan = async move |_: Transaction| {
            let outcome = Outcome::Failed(made);
            Ok::<_, sqlx::Error>(Plan::<()>::Finish {
                resource_id: None,
                outcome,
            })
        };
        let planned = scope("planned");
        let claimed = engine.claim(&planned, &1, Wait::Configured, plan);
        assert_refused(claimed.await, &why);
    }
    assert_eq!(count(&pool, "idempotency_keys").await, 0);

    let (answer, why) = unsendable().remove(0);
    let plan = async |_: Transaction| {
        let resource_id = "r".to_owned();
        Ok::<_, sqlx::Error>(Plan::Call {
            resource_id,
            work: (),
        })
    };
    let settled = scope("settled");
    let gate = engine.claim(&settled, &1, Wait::Configured, plan);
    let Ok(Gate::Claimed { permit, .. }) = gate.await else {
        panic!("not ours");
    };
    let settle = move |_: Transaction| {
        let outcome = Outcome::Completed(answer.clone());
        async move { Ok::<_, sqlx::Error>(outcome) }
    };
    assert_refused(engine.settle(permit, settle).await, &why);
    // The claim stays, and a later owner settles it with an answer that can be sent.
    assert_eq!(count(&pool, "unsettled_keys").await, 1);
    engine.finish().await;
    pool.close().await;
}
