//! Chaos: two nodes on one PostgreSQL, sixteen clients that repeat each request until its answer is final, a gateway that
//! fails in every way it knows, nodes that are killed and a database that is stopped. Afterwards the gateway's books, the
//! database and what the clients were told agree.
//!
//! `make test` runs it from a fixed seed; `make chaos SEED=7 SECONDS=600` from any, for any time. The seed decides what is
//! asked, who dies and when; what meets what is for the machine's timing.

mod audit;
mod client;
mod storm;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::gateway::{Fault, TestGateway};
use crate::support::process::merchant;

use self::client::Client;
use self::storm::Storm;
use self::told::Told;

const CLIENTS: u64 = 16;

/// Each kind of fault befalls so many of a hundred requests to the gateway.
const PERCENT_EACH: u32 = 6;

/// All is settled this long after the faults end.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// How long, and from which seed.
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
    let cluster = Cluster::start();
    let gateway = TestGateway::start();
    let storm = Storm::new(&cluster, &gateway, plan.seed);
    let nodes = storm.nodes();
    let merchant = merchant(&cluster.options(), &nodes.url(0), "acme");

    // The kinds that a retry gets through, and the one that it does not.
    let mut kinds = Fault::CHAOS.to_vec();
    kinds.push(Fault::StoredError);
    let percent = PERCENT_EACH * u32::try_from(kinds.len()).expect("a few");
    gateway.chaos_of(plan.seed, percent, &kinds);
    let told = Arc::new(Told::default());
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client::new(
                number,
                plan.seed,
                merchant.clone(),
                Arc::clone(&nodes),
                Arc::clone(&told),
                Arc::clone(&over),
            );
            tokio::spawn(client.work())
        })
        .collect();

    // Starting and stopping processes blocks.
    let raging = tokio::task::spawn_blocking(move || {
        let mut storm = storm;
        storm.rage(plan.length, &cluster);
        (storm, cluster)
    });
    let (storm, cluster) = raging.await.expect("the storm's thread");
    over.store(true, Ordering::Relaxed);
    gateway.calm();

    let calm = Instant::now();
    for client in clients {
        tokio::time::timeout_at((calm + SETTLED_WITHIN).into(), client)
            .await
            .unwrap_or_else(|_| {
                panic!(
                    "a client has no final answer {SETTLED_WITHIN:?} after the faults ended: {}",
                    storm.logs()
                )
            })
            .expect("a client's task");
    }
    let pool = sqlx::PgPool::connect_with(cluster.options())
        .await
        .expect("a pool");
    audit::until_settled(&pool, calm + SETTLED_WITHIN, &storm).await;
    let settled = calm.elapsed();
    audit::books_agree(&pool, &gateway.ledger(), &told).await;
    told.every_key_still_answers_the_same(&nodes).await;
    println!(
        "chaos, seed {}, {:?}: {}; {}; faults {:?}; settled {settled:?} after the faults ended",
        plan.seed,
        plan.length,
        told.summary(),
        storm.summary(),
        gateway.ledger().faults,
    );
    pool.close().await;
}
