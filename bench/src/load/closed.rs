//! The closed loop: each connection sends its next request when the last one is answered.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::tally::Measure;
use super::{Connection, Keys, Latency, Tally};
use crate::process::{Usage, Watched, usage_between};
use crate::requests::Request;
use crate::server::Address;

/// The load of a closed loop.
#[derive(Clone, Debug)]
pub struct Load {
    pub connections: u32,
    pub threads: u16,
    pub warm_up: Duration,
    pub duration: Duration,
    /// The database servers whose processor time is told apart, by their first processes.
    pub postmasters: Vec<u32>,
}

/// The result of a closed loop.
#[derive(Debug)]
pub struct Driven {
    pub tally: Tally,
    pub per_second: f64,
    pub latency: Latency,
    /// The machine's resources that it used.
    pub usage: Usage,
}

/// Sends requests until the time is over or the keys are used up, and waits for every answer.
///
/// Fails if a connection breaks, because the outcome of its request could not be counted.
pub async fn drive(
    to: Address,
    request: Request,
    keys: Keys,
    load: Load,
) -> anyhow::Result<Driven> {
    tokio::task::spawn_blocking(move || drive_on_threads(to, &request, &keys, &load))
        .await
        .context("the generator panicked")?
}

fn drive_on_threads(
    to: Address,
    request: &Request,
    keys: &Keys,
    load: &Load,
) -> anyhow::Result<Driven> {
    let (ready, all_ready) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for connections in shares(load.connections, load.threads) {
            let (go, start) = oneshot::channel();
            let ready = ready.clone();
            let work = move || run_thread(to, connections, request, keys, ready, start);
            threads.push((scope.spawn(work), go));
        }
        for _ in &threads {
            // A thread that could not connect does not report that it is ready. Its error is returned at its end.
            let _ = all_ready.recv_timeout(Duration::from_secs(30));
        }
        let begin = Instant::now() + load.warm_up;
        let measure = Measure {
            begin,
            end: begin + load.duration,
        };
        let threads: Vec<_> = threads
            .into_iter()
            .map(|(thread, go)| {
                // Fails if the thread has failed.
                let _ = go.send(measure);
                thread
            })
            .collect();
        let watched = Watched {
            service: to.process_id,
            postmasters: load.postmasters.clone(),
        };
        let usage = usage_between(&watched, measure.begin, measure.end, || {
            threads.iter().all(|thread| thread.is_finished())
        });
        let mut tally = Tally::new()?;
        let mut ended = measure.begin;
        for thread in threads {
            let (part, last) = thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of the generator panicked"))??;
            tally.add(&part)?;
            ended = ended.max(last);
        }
        // Keys that are used up end the run early.
        let measured = ended.min(measure.end).duration_since(measure.begin);
        Ok(Driven {
            per_second: tally.measured as f64 / measured.as_secs_f64().max(1e-3),
            latency: tally.latency(),
            usage: usage?.per_answer(tally.measured),
            tally,
        })
    })
}

/// Number of connections of each thread; no thread is without one.
fn shares(connections: u32, threads: u16) -> Vec<u32> {
    let threads = u32::from(threads).min(connections).max(1);
    (0..threads)
        .map(|thread| connections / threads + u32::from(thread < connections % threads))
        .collect()
}

fn run_thread(
    to: Address,
    connections: u32,
    request: &Request,
    keys: &Keys,
    ready: mpsc::Sender<()>,
    start: oneshot::Receiver<Measure>,
) -> anyhow::Result<(Tally, Instant)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let counted = Rc::clone(&tally);
    let ended = LocalSet::new().block_on(&runtime, async move {
        let mut opened = Vec::new();
        for _ in 0..connections {
            opened.push(Connection::open(to.socket).await?);
        }
        let _ = ready.send(());
        let measure = start.await.context("the run was given up")?;
        let tasks: Vec<_> = opened
            .into_iter()
            .map(|connection| {
                let (request, keys, tally) = (request.clone(), keys.clone(), Rc::clone(&counted));
                tokio::task::spawn_local(run_connection(connection, request, keys, tally, measure))
            })
            .collect();
        let mut ended = measure.begin;
        for task in tasks {
            ended = ended.max(task.await.context("a connection's task panicked")??);
        }
        anyhow::Ok(ended)
    })?;
    let tally = Rc::into_inner(tally).context("a task outlived its thread")?;
    Ok((tally.into_inner(), ended))
}

/// Returns the time of its last answer.
async fn run_connection(
    mut connection: Connection,
    mut request: Request,
    keys: Keys,
    tally: Rc<RefCell<Tally>>,
    measure: Measure,
) -> anyhow::Result<Instant> {
    let mut sent = Instant::now();
    while sent < measure.end {
        let Some(key) = keys.next() else { break };
        let response = connection.exchange(request.with_key(&key)).await?;
        let arrived = Instant::now();
        tally.borrow_mut().count(response, sent, arrived, &measure);
        sent = arrived;
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_out_evenly_and_none_is_lost() {
        for (connections, threads, expected) in [
            (1, 2, vec![1]),
            (2, 2, vec![1, 1]),
            (5, 2, vec![3, 2]),
            (512, 3, vec![171, 171, 170]),
        ] {
            assert_eq!(shares(connections, threads), expected);
        }
    }
}
