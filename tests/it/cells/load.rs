//! A merchant is moved while its clients pay through the proxy. They obey `retry` and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::proxy::Proxy;
use super::{SecondDatabase, move_to, moved, mover, rows_of, state, triggers};
use crate::support::gateway::TestGateway;
use crate::support::haproxy;
use crate::support::process::{Server, json as stdout, program, run};
use crate::support::service::{Answer, Merchant, Request, client};

/// Clients at once.
const CLIENTS: usize = 6;

/// Only an event that never happens takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the clients of one merchant were told, by key.
type Told = BTreeMap<String, Answer>;

/// A merchant of a cell, whose API key names the cell, or none.
fn merchant_of(db: &PgConnectOptions, proxy: &Proxy, arguments: &[&str], cell: &str) -> Merchant {
    let created = run(program("payonce", db)
        .args(arguments)
        .env("PAYONCE_CELL", cell));
    assert!(created.status.success(), "{created:?}");
    Merchant {
        url: proxy.url.clone(),
        api_key: stdout(&created)["apiKey"]
            .as_str()
            .expect("a key")
            .to_owned(),
        client: client(),
    }
}

/// Sends a request until its answer is final, as `retry` says. Returns how often it was refused, too.
async fn until_final(request: &Request) -> (Answer, usize) {
    let begun = Instant::now();
    let mut refused = 0;
    loop {
        let answer = request.send().await;
        match answer.status.as_u16() {
            201 => return (answer, refused),
            202 => {}
            // The proxy's own, where its checks of a loaded machine's nodes take too long: it has sent the request to nobody.
            503 if answer.header("retry-after").is_none() => {
                assert!(begun.elapsed() < PATIENCE, "no node: {answer:?}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            _ => assert_eq!(answer.json()["retry"], "same-key", "{answer:?}"),
        }
        assert!(begun.elapsed() < PATIENCE, "no final answer: {answer:?}");
        let seconds = answer.header("retry-after").and_then(|it| it.parse().ok());
        let seconds = seconds.expect("Retry-After");
        refused += 1;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// Clients that pay one after the other until it is over. Returns what they were told, and how often they were refused.
async fn pay(merchant: Merchant, name: &str, over: Arc<AtomicBool>) -> (Told, usize) {
    let clients = (0..CLIENTS).map(|number| {
        let (merchant, over) = (merchant.clone(), Arc::clone(&over));
        async move {
            let (mut told, mut refusals) = (Told::new(), 0);
            while !over.load(Ordering::Relaxed) {
                let key = format!("{name}-{number}-{}", told.len());
                let (answer, refused) = until_final(&merchant.pay("10").key(&key)).await;
                told.insert(key, answer);
                refusals += refused;
            }
            (told, refusals)
        }
    });
    let each = join_all(clients).await;
    each.into_iter()
        .fold((Told::new(), 0), |(mut all, sum), (told, refused)| {
            all.extend(told);
            (all, sum + refused)
        })
}

async fn payments_of(pool: &PgPool, merchant: &str) -> i64 {
    sqlx::query_scalar("select count(*) from payments where merchant_id = $1")
        .bind(merchant)
        .fetch_one(pool)
        .await
        .expect("a count")
}

async fn until_paid(pool: &PgPool, merchant: &str, payments: i64) {
    let deadline = Instant::now() + PATIENCE;
    while payments_of(pool, merchant).await < payments {
        assert!(Instant::now() < deadline, "there is no load");
        crate::support::pause().await;
    }
}

fn lines(report: &Value) -> Vec<String> {
    let lines = report["haproxyMap"].as_array().expect("lines").iter();
    lines
        .map(|line| line.as_str().expect("a line").to_owned())
        .collect()
}

/// Each key paid once, and the other cell says of it what was said before.
async fn assert_paid_once(
    pool: &PgPool,
    gateway: &TestGateway,
    merchant: &Merchant,
    id: &str,
    told: &Told,
) {
    let expected = i64::try_from(told.len()).expect("a number");
    assert_eq!(
        payments_of(pool, id).await,
        expected,
        "a payment for each key"
    );
    let ledger = gateway.ledger();
    for (key, answer) in told {
        let charge = ledger.only_charge(&answer.text("id"));
        assert_eq!(charge.amount, 1000, "{key}");
        let replay = merchant.pay("10").key(key).send().await;
        assert!(replay.replayed(), "{key}: {replay:?}");
        assert_eq!(replay.status, answer.status, "{key}");
        assert_eq!(replay.bytes, answer.bytes, "{key}: the same bytes");
    }
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn a_merchant_moves_under_load_and_every_key_pays_once(
    pool: PgPoolOptions,
    db: PgConnectOptions,
) {
    if !haproxy::is_here("a merchant that moves between two cells behind HAProxy") {
        return;
    }
    let first = pool.connect_with(db.clone()).await.expect("a pool");
    let other = SecondDatabase::create(&db).await;
    let second = other.pool().await;
    // Both cells charge at one account of the gateway, so its books have what either did.
    let gateway = TestGateway::start();
    let node = |db: &PgConnectOptions, cell: &str| {
        Server::start_on(&gateway.url(), db, &[("PAYONCE_CELL", cell)])
    };
    let ones = [node(&db, "1"), node(&db, "1")];
    let twos = [node(&other.options, "2"), node(&other.options, "2")];
    let proxy = Proxy::start([[&ones[0], &ones[1]], [&twos[0], &twos[1]]]).await;
    assert!(ones[0].log().contains("\"cell\":1"), "{}", ones[0].log());
    let numbers = client()
        .get(format!("{}/metrics", twos[0].url))
        .send()
        .await;
    let numbers = numbers.expect("an answer").text().await.expect("text");
    assert!(numbers.contains("\npayonce_cell 2\n"), "{numbers}");

    let acme = merchant_of(&db, &proxy, &["merchants", "create", "acme"], "1");
    // A key from before there were cells.
    let plain = merchant_of(&db, &proxy, &["api-keys", "create", "acme"], "");
    let neighbor = merchant_of(&db, &proxy, &["merchants", "create", "neighbor"], "1");
    let there = merchant_of(
        &other.options,
        &proxy,
        &["merchants", "create", "there"],
        "2",
    );
    assert!(there.api_key.starts_with("sk_2_") && plain.api_key.len() == 67);

    let over = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(pay(acme.clone(), "acme", Arc::clone(&over)));
    let beside = tokio::spawn(pay(neighbor.clone(), "neighbor", Arc::clone(&over)));
    let elsewhere = tokio::spawn(pay(there.clone(), "there", Arc::clone(&over)));
    until_paid(&first, "acme", 60).await;

    let report = moved(mover(&db, &other.options, "acme")).await;
    assert_eq!(report["merchantId"], "acme");
    assert_eq!(report["cell"], 2);
    assert_eq!(report["rows"]["api_keys"], 2);
    let copied = payments_of(&first, "acme").await;
    assert!(copied >= 60);
    assert_eq!(report["rows"]["payments"], copied);
    assert_eq!(lines(&report).len(), 2, "one for each API key");
    // Until the proxy knows, the cell that the merchant left refuses everything, as soon as its nodes have seen the move's end.
    let deadline = Instant::now() + PATIENCE;
    let read = loop {
        let write = acme.pay("10").key("late").send().await;
        write.assert_problem(503, "database-unavailable", "same-key");
        let read = acme.get("/v1/payments").await;
        if read.status != 200 {
            break read;
        }
        assert!(Instant::now() < deadline, "it is still read");
    };
    read.assert_problem(503, "database-unavailable", "same-key");
    let detail = read.text("detail");
    assert!(detail.contains("is served by cell 2"), "{detail}");

    proxy.learn(&lines(&report)).await;
    until_paid(&second, "acme", copied + 60).await;
    over.store(true, Ordering::Relaxed);
    let (told, refusals) = load.await.expect("no panic");
    let (of_neighbor, refused_beside) = beside.await.expect("no panic");
    let (of_there, refused_there) = elsewhere.await.expect("no panic");
    assert!(refusals > 0, "the move was seen");
    assert_eq!(refused_beside + refused_there, 0, "nobody else noticed it");

    assert_eq!(
        payments_of(&first, "acme").await,
        copied,
        "no write after the copy"
    );
    assert_paid_once(&second, &gateway, &acme, "acme", &told).await;
    assert_paid_once(&first, &gateway, &neighbor, "neighbor", &of_neighbor).await;
    assert_paid_once(&second, &gateway, &there, "there", &of_there).await;
    gateway.ledger().assert_nothing_twice();
    let payments = told.len() + of_neighbor.len() + of_there.len();
    assert_eq!(gateway.ledger().charges.len(), payments);

    // The old keys and the payments from before are good there.
    let before = told.values().next().expect("an answer").text("id");
    let refund = plain.post(
        &format!("/v1/payments/{before}/refunds"),
        json!({"amount": "1"}),
    );
    assert_eq!(refund.key("refund").send().await.status, 201);
    assert_eq!(gateway.ledger().refunds_for(&before).len(), 1);
    println!(
        "moved {copied} payments under load in {} ms of refused writes, {refusals} refusals, {payments} payments in all",
        report["writesRefusedMs"]
    );

    // And back: the rows that it left behind are replaced.
    let back = moved(move_to(&other.options, &db, "acme", "1")).await;
    assert_eq!(
        rows_of(&first, "acme").await,
        rows_of(&second, "acme").await
    );
    let told_twice = lines(&back);
    proxy.change(&told_twice).await;
    assert_eq!(acme.pay("10").key("home").send().await.status, 201);
    assert_eq!(state(&first, "acme").await, "-");
    assert_eq!(state(&second, "acme").await, "MOVED");
    assert_eq!(
        triggers(&first).await,
        [""; 0],
        "nothing moves here any more"
    );
    for pool in [first, second] {
        pool.close().await;
    }
}
