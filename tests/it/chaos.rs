//! Chaos: two nodes on a PostgreSQL with a synchronous standby, sixteen clients that repeat each request until its answer is final,
//! a gateway that fails in every way it knows, nodes that are killed, stopped, sleep for a day or have a wrong secret, a third
//! process with another gateway, and a database that is stopped or lost, whose connections stop answering, and whose sessions are
//! terminated. Refunds fail after they were accepted, and the merchant's account changes. After every minute the gateway's books,
//! the database and the clients' answers must agree.
//!
//! `make test` runs it from a fixed seed; `make soak SEED=7 SECONDS=3600` from any, for any time. The seed decides the requests and
//! the faults; the machine's timing decides how they interleave.

mod audit;
mod client;
mod storm;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::support::gateway::{Fault, TestGateway};
use crate::support::pair::Pair;
use crate::support::process::merchant;
use crate::support::service::Merchant;

use self::client::Client;
use self::storm::{Storm, settled_within};
use self::told::Told;

const CLIENTS: u64 = 16;

/// Percentage of the requests to the gateway that get each kind of fault.
const PERCENT_EACH: u32 = 5;

/// An answer that arrives after the service has stopped waiting for it.
const SILENCE: Fault = Fault::Slow(Duration::from_secs(4));

/// Duration of a round. The books are compared after each.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// The duration and the seed.
struct Plan {
    seed: u64,
    length: Duration,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name, default| match std::env::var(name) {
            Ok(text) if !text.is_empty() => text
                .parse()
                .unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")),
            _ => default,
        };
        Self {
            seed: number("CHAOS_SEED", 20_261_124),
            length: Duration::from_secs(number("CHAOS_SECONDS", 30)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_charged_twice_and_nothing_is_lost() {
    let plan = Plan::from_environment();
    let gateway = Arc::new(TestGateway::start());
    let mut pair = Pair::start().await;
    let mut storm = Storm::new(&pair, &gateway, plan.seed);
    let merchant = merchant(&pair.options(), &storm.nodes().url(0), "acme");
    let (began, mut cases, mut unknown) = (Instant::now(), 0, 0);
    for round in 0.. {
        let left = plan.length.saturating_sub(began.elapsed());
        if left.is_zero() && round > 0 {
            break;
        }
        let told = Arc::new(Told::default());
        (storm, pair) = rage(
            &plan,
            round,
            left,
            (storm, pair),
            &gateway,
            &merchant,
            &told,
        )
        .await;
        compare_the_books(&storm, &pair, &gateway, &told).await;
        let counts = told.counts();
        (cases, unknown) = (cases + counts.0, unknown + counts.1);
        println!("chaos, round {round}: {}", told.summary());
        println!(
            "chaos, seed {}, {} s: {cases} cases, {}, {unknown} answers of an unknown outcome, {} charges and {} refunds at the \
             gateway, 0 differences",
            plan.seed,
            began.elapsed().as_secs(),
            storm.summary(),
            gateway.ledger().charges.len(),
            gateway.ledger().refunds.len(),
        );
    }
    println!("chaos: faults {:?}", gateway.ledger().faults);
}

/// One round: the clients work under faults, and then without them until each has its answer.
async fn rage(
    plan: &Plan,
    round: u32,
    left: Duration,
    (storm, pair): (Storm, Pair),
    gateway: &TestGateway,
    merchant: &Merchant,
    told: &Arc<Told>,
) -> (Storm, Pair) {
    // The kinds that a retry overcomes, and those that it does not.
    let mut kinds = Fault::CHAOS.to_vec();
    kinds.extend([Fault::StoredError, SILENCE]);
    let percent = PERCENT_EACH * u32::try_from(kinds.len()).expect("a few");
    gateway.chaos_of(plan.seed.wrapping_add(round.into()), percent, &kinds);
    let (nodes, over) = (storm.nodes(), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (nodes, told, over) = (Arc::clone(&nodes), Arc::clone(told), Arc::clone(&over));
            let client = Client::new(
                number,
                round,
                plan.seed,
                merchant.clone(),
                nodes,
                told,
                over,
            );
            tokio::spawn(client.work())
        })
        .collect();

    // Starting and stopping processes blocks.
    let runtime = Handle::current();
    let raging = tokio::task::spawn_blocking(move || {
        let (mut storm, mut pair) = (storm, pair);
        storm.rage(left.min(LONGEST_ROUND), &mut pair, &runtime);
        (storm, pair)
    });
    let (storm, pair) = raging.await.expect("the storm's thread");
    over.store(true, Ordering::Relaxed);
    gateway.calm();
    let deadline = Instant::now() + settled_within();
    for client in clients {
        tokio::time::timeout_at(deadline.into(), client)
            .await
            .unwrap_or_else(|_| {
                panic!(
                    "a client has no final answer {:?} after the faults ended: {}",
                    settled_within(),
                    storm.logs()
                )
            })
            .expect("a client's task");
    }
    (storm, pair)
}

async fn compare_the_books(storm: &Storm, pair: &Pair, gateway: &TestGateway, told: &Told) {
    let pool = sqlx::PgPool::connect_with(pair.options())
        .await
        .expect("a pool");
    audit::until_settled(&pool, Instant::now() + settled_within(), storm).await;
    audit::books_agree(&pool, &gateway.ledger(), told).await;
    pool.close().await;
    told.every_key_still_answers_the_same(&storm.nodes()).await;
}
