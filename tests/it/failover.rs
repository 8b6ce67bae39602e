//! Two PostgreSQL servers with synchronous replication: the primary dies under load, the standby is promoted, and no confirmed
//! payment is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::PgPool;

use crate::support::gateway::TestGateway;
use crate::support::pair::Pair;
use crate::support::process::{Server, merchant};
use crate::support::service::{Merchant, count};

const CLIENTS: usize = 8;

/// A key, and the payment in its 201.
type Confirmed = BTreeMap<String, String>;

/// Pays under one key after the other until told to stop, and keeps each key until its 201.
async fn pay_until(
    stop: Arc<AtomicBool>,
    confirmed: Arc<AtomicUsize>,
    acme: Merchant,
    client: usize,
) -> Confirmed {
    let mut made = Confirmed::new();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let key = format!("{client}-{number}");
        let request = acme.pay("10").key(&key);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match request.try_send().await {
                Ok(answer) if answer.status == 201 => {
                    made.insert(key, answer.text("id"));
                    confirmed.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                // After any other answer, the client sends the request again.
                Ok(answer) => assert!(
                    [202, 409, 503].contains(&answer.status.as_u16()),
                    "{}",
                    String::from_utf8_lossy(&answer.bytes)
                ),
                Err(_) => {}
            }
            assert!(Instant::now() < deadline, "{key} is never paid");
            crate::support::pause().await;
        }
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_dies_under_load_takes_no_confirmed_payment_with_it() {
    let mut pair = Pair::start().await;
    let gateway = TestGateway::start();
    let server = Server::start_on(
        &gateway.url(),
        &pair.options(),
        &[
            ("PAYONCE_LOCK_TIMEOUT", "1s"),
            ("PAYONCE_RECOVERY_INTERVAL", "200ms"),
        ],
    );
    let acme = merchant(&pair.primary().options(), &server.url, "acme");

    let (stop, confirmed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients =
        (0..CLIENTS).map(|client| pay_until(stop.clone(), confirmed.clone(), acme.clone(), client));
    let load = tokio::spawn(join_all(clients));
    let until = async |payments: usize| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while confirmed.load(Ordering::SeqCst) < payments {
            assert!(
                Instant::now() < deadline,
                "no more payments: {}",
                server.log()
            );
            crate::support::pause().await;
        }
    };
    until(100).await;
    pair.fail_over();
    let before = confirmed.load(Ordering::SeqCst);
    until(before + 100).await;
    stop.store(true, Ordering::SeqCst);
    let made: Confirmed = load
        .await
        .expect("no panic")
        .into_iter()
        .flatten()
        .collect();

    let pool = PgPool::connect_with(pair.primary().options())
        .await
        .expect("the new primary");
    let kept: Confirmed = sqlx::query_as::<_, (String, String)>(
        "select idempotency_key, payment_id from payments where state = 'SUCCESS'",
    )
    .fetch_all(&pool)
    .await
    .expect("the payments")
    .into_iter()
    .collect();
    let lost: Vec<_> = made
        .iter()
        .filter(|(key, id)| kept.get(*key) != Some(*id))
        .collect();
    assert!(lost.is_empty(), "confirmed, and missing: {lost:?}");
    assert_eq!(
        count(&pool, "payments").await,
        i64::try_from(made.len()).expect("a number")
    );
    assert_eq!(count(&pool, "unsettled_keys").await, 0);
    let ledger = gateway.ledger();
    ledger.assert_nothing_twice();
    assert_eq!(ledger.charges.len(), made.len(), "each was charged once");
    pool.close().await;
}
