//! The open loop: requests at a given rate, whether the last ones were answered or not.
//!
//! A latency counts from the time at which the request was due. A generator that waits for slow answers and sends less in the
//! meantime would leave out the worst latencies ("coordinated omission").

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Mutex, mpsc};
use tokio::task::LocalSet;

use super::tally::Measure;
use super::{Connection, Keys, Tally};
use crate::requests::Request;

/// Minimum number of connections.
const CONNECTIONS: u32 = 64;

/// Enough for waits of a quarter of a second: 200 a second over a gateway that takes 100 ms have twice what they need.
fn connections_for(per_second: u32) -> u32 {
    (per_second / 4).max(CONNECTIONS)
}

/// The load of an open loop.
#[derive(Clone, Debug)]
pub struct Pace {
    pub per_second: u32,
    pub warm_up: Duration,
    /// Maximum duration of the measurement.
    pub duration: Duration,
    /// Ends it earlier.
    pub stop: Arc<AtomicBool>,
}

impl Pace {
    pub fn new(per_second: u32, warm_up: Duration, duration: Duration) -> Self {
        Self {
            per_second,
            warm_up,
            duration,
            stop: Arc::default(),
        }
    }
}

/// Sends at a pace, and waits for every answer.
pub async fn drive(
    to: SocketAddr,
    request: Request,
    keys: Keys,
    pace: Pace,
) -> anyhow::Result<Tally> {
    tokio::task::spawn_blocking(move || drive_on_thread(to, &request, &keys, &pace))
        .await
        .context("the generator panicked")?
}

fn drive_on_thread(
    to: SocketAddr,
    request: &Request,
    keys: &Keys,
    pace: &Pace,
) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tally = Rc::new(RefCell::new(Tally::new()?));
    let counted = Rc::clone(&tally);
    LocalSet::new().block_on(&runtime, async move {
        let mut opened = Vec::new();
        for _ in 0..connections_for(pace.per_second) {
            opened.push(Connection::open(to).await?);
        }
        let (due, to_send) = mpsc::unbounded_channel();
        let begin = Instant::now() + pace.warm_up;
        let measure = Measure {
            begin,
            end: begin + pace.duration + Duration::from_secs(60),
        };
        let pacing = pace.clone();
        let pacer = std::thread::spawn(move || run_pacer(&pacing, begin, &due));
        let to_send = Rc::new(Mutex::new(to_send));
        let tasks: Vec<_> = opened
            .into_iter()
            .map(|connection| {
                let (request, keys) = (request.clone(), keys.clone());
                let (to_send, tally) = (Rc::clone(&to_send), Rc::clone(&counted));
                tokio::task::spawn_local(run_connection(
                    connection, request, keys, to_send, tally, measure,
                ))
            })
            .collect();
        for task in tasks {
            task.await.context("a connection's task panicked")??;
        }
        pacer
            .join()
            .map_err(|_| anyhow::anyhow!("the pacer panicked"))
    })?;
    let tally = Rc::into_inner(tally).context("a task outlived its thread")?;
    Ok(tally.into_inner())
}

/// A thread and not a timer of the runtime, whose ticks of a millisecond would be counted as the service's.
fn run_pacer(pace: &Pace, begin: Instant, due: &mpsc::UnboundedSender<Instant>) {
    let (start, end) = (Instant::now(), begin + pace.duration);
    for turn in 0.. {
        let intended = start + Duration::from_secs(1) * turn / pace.per_second;
        if intended >= end || pace.stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        if due.send(intended).is_err() {
            return;
        }
    }
}

async fn run_connection(
    mut connection: Connection,
    mut request: Request,
    keys: Keys,
    to_send: Rc<Mutex<mpsc::UnboundedReceiver<Instant>>>,
    tally: Rc<RefCell<Tally>>,
    measure: Measure,
) -> anyhow::Result<()> {
    loop {
        let intended = to_send.lock().await.recv().await;
        let (Some(intended), Some(key)) = (intended, keys.next()) else {
            return Ok(());
        };
        let response = connection.exchange(request.with_key(&key)).await?;
        tally
            .borrow_mut()
            .count(response, intended, Instant::now(), &measure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faster_pace_has_more_connections() {
        assert_eq!(connections_for(200), 64);
        assert_eq!(connections_for(1000), 250);
    }
}
