//! The crash sweep: a server is aborted at every step of every operation, under every fault of the gateway, with a client that
//! retries and with one that does not, and another server continues.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::gateway::Fault;

use super::worker::{OPERATIONS, Operation, Worker};

const STEPS: [&str; 7] = [
    "claim-before",
    "claim-before-commit",
    "claim-committed",
    "call-before",
    "call-answered",
    "settle-before-commit",
    "settle-committed",
];

/// The cases mostly wait for a lease to end. This number of them runs at once, each with its own database and gateway.
const WORKERS: usize = 12;

#[derive(Clone, Copy, Debug)]
struct Case {
    step: &'static str,
    operation: Operation,
    fault: Fault,
    /// Whether its client retries.
    returns: bool,
}

/// The result of a case.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    died: usize,
    /// A fault can outlast the request: 202 comes before the step is reached, and the server lives.
    answered_unknown: usize,
    /// On a loaded machine the fault may outlast the request without letting it through: then nothing happened, and the answer is 503.
    answered_nothing: usize,
    /// On a loaded machine the lease may end before the step is reached. Then the survivor did the work, and its answer is
    /// replayed.
    overtaken: usize,
    /// The longest time that a retrying client waited for its answer.
    longest_wait: Duration,
    /// The longest time that it took without a client.
    longest_recovery: Duration,
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self {
            died: self.died + other.died,
            answered_unknown: self.answered_unknown + other.answered_unknown,
            answered_nothing: self.answered_nothing + other.answered_nothing,
            overtaken: self.overtaken + other.overtaken,
            longest_wait: self.longest_wait.max(other.longest_wait),
            longest_recovery: self.longest_recovery.max(other.longest_recovery),
        }
    }
}

fn cases() -> VecDeque<Case> {
    let faults = [Fault::None, Fault::StoredError]
        .into_iter()
        .chain(Fault::CHAOS.iter().copied());
    let mut cases = VecDeque::new();
    for fault in faults {
        for step in STEPS {
            for operation in OPERATIONS {
                for returns in [true, false] {
                    cases.push_back(Case {
                        step,
                        operation,
                        fault,
                        returns,
                    });
                }
            }
        }
    }
    cases
}

impl Worker {
    async fn case(&self, case: Case) -> Seen {
        let Case {
            step,
            operation,
            fault,
            returns,
        } = case;
        let key = format!("{step}-{}-{fault:?}-{returns}", operation.name);
        let request = self.request(operation, &key).await;
        let mut doomed = self.doomed(&format!("{step}=return"));
        if fault != Fault::None {
            // The first call gets it: that of the server that will die, or, if it dies early, that of the survivor.
            self.gateway.script([(operation.endpoint, fault)]);
        }
        let first = request.clone().at(&doomed.url).try_send().await;
        let mut seen = Seen::default();
        match first {
            Err(_) => seen.died = 1,
            Ok(answer) if answer.status == 202 => seen.answered_unknown = 1,
            Ok(answer) if answer.replayed() => seen.overtaken = 1,
            Ok(answer) if answer.status == 503 && answer.json()["charged"] == "no" => {
                seen.answered_nothing = 1;
            }
            Ok(answer) => panic!("{key}: it did not die: {answer:?}"),
        }
        doomed.kill();
        if returns {
            let (answer, waited) = self.until_final(&request).await;
            assert_ne!(answer.status, 402, "{key}: {answer:?}");
            seen.longest_wait = waited;
            self.until_settled(&key).await;
            assert_eq!(
                request.send().await.bytes,
                answer.bytes,
                "{key}: every retry gets equal bytes"
            );
        } else {
            seen.longest_recovery = self.until_settled(&key).await;
        }
        self.gateway.calm();
        self.books_agree(operation, &key).await;
        seen
    }
}

/// Takes cases until there are none, on a database of its own.
fn work(database: &PgConnectOptions, queue: &Mutex<VecDeque<Case>>) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let worker = Worker::start(database);
        let mut seen = Seen::default();
        loop {
            // A separate statement, so that the queue is not locked while the case runs.
            let next = queue.lock().expect("the queue").pop_front();
            let Some(case) = next else { return seen };
            seen = seen.and(worker.case(case).await);
        }
    })
}

#[sqlx::test(migrator = "payonce::MIGRATOR")]
async fn whatever_dies_there_is_one_charge(options: PgPoolOptions, db: PgConnectOptions) {
    // A template can be copied only while nobody is connected to it.
    drop(options);
    let template = db.get_database().expect("a name").to_owned();
    let mut server = PgConnection::connect_with(&db.clone().database("postgres"))
        .await
        .expect("the server");
    let run = std::process::id();
    let names: Vec<String> = (0..WORKERS)
        .map(|number| format!("payonce_sweep_{run}_{number}"))
        .collect();
    for name in &names {
        let create = format!("create database \"{name}\" template \"{template}\"");
        sqlx::raw_sql(AssertSqlSafe(create))
            .execute(&mut server)
            .await
            .expect("a database");
    }
    let queue = Mutex::new(cases());
    let total = queue.lock().expect("the queue").len();
    let seen = std::thread::scope(|scope| {
        let workers: Vec<_> = names
            .iter()
            .map(|name| {
                let (database, queue) = (db.clone().database(name), &queue);
                scope.spawn(move || work(&database, queue))
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .fold(Seen::default(), Seen::and)
    });
    for name in &names {
        let delete = format!("drop database \"{name}\" with (force)");
        sqlx::raw_sql(AssertSqlSafe(delete))
            .execute(&mut server)
            .await
            .expect("dropped");
    }
    server.close().await.expect("closed");
    let answered = seen.answered_unknown + seen.answered_nothing;
    assert_eq!(seen.died + answered + seen.overtaken, total);
    assert!(seen.died > 200, "{seen:?}");
    println!("crash sweep: {total} cases, {seen:?}");
}
