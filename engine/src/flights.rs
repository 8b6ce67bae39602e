//! Single flight: of the duplicates in one process, only one asks the database.
//!
//! The first request with a key leads, and those that come while it works follow: they hold no connection and wait for the leader's
//! answer. If a leader ends without an answer (it was refused, it failed, it was dropped), one of them takes its place. The leaders
//! that hold claims also tell the process which leases to renew.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::fingerprint::Fingerprint;
use super::key::ScopedKey;
use super::lease::Lease;
use super::record::Answer;

/// The state of a leader.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// It has no claim: it may end without a trace.
    Boarding,
    /// The key has a claim: the leader's own, or one that it found.
    Claimed,
    /// It has the final answer.
    Answered(Answer),
}

/// How a request joins a flight.
pub(super) enum Boarding {
    /// No other request in this process works on the key.
    Leader(Flight),
    /// Another request does.
    Follower(Follower),
}

/// A flight with another request as its leader.
pub(super) struct Follower {
    /// The leader's request.
    pub(super) fingerprint: Arc<Fingerprint>,
    landing: watch::Receiver<Landing>,
}

impl Follower {
    /// Waits until the key has a claim or an answer. Returns false if the flight ended without either.
    pub(super) async fn claimed(&mut self) -> bool {
        let landing = self
            .landing
            .wait_for(|landing| !matches!(landing, Landing::Boarding))
            .await;
        let is_answered = match landing.as_deref() {
            Ok(landing) => matches!(landing, Landing::Answered(_)),
            Err(_) => return false,
        };
        drop(landing);
        // A leader that has given its claim back in the meantime leaves nothing to compare with.
        is_answered || self.landing.has_changed().is_ok()
    }

    /// Waits until the leader ends. Returns `None` if it ended without an answer.
    pub(super) async fn landed(&mut self) -> Option<Answer> {
        let landing = self
            .landing
            .wait_for(|landing| matches!(landing, Landing::Answered(_)))
            .await;
        match landing.as_deref() {
            Ok(Landing::Answered(answer)) => Some(answer.clone()),
            _ => None,
        }
    }
}

struct Aloft {
    fingerprint: Arc<Fingerprint>,
    landing: watch::Receiver<Landing>,
    /// Set while the leader holds the key's claim.
    lease: Option<Arc<Lease>>,
}

/// Number of shards: enough that two requests rarely wait for the same lock.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<ScopedKey, Aloft>>;

struct Shards {
    hasher: RandomState,
    shards: [Shard; SHARDS],
}

impl Shards {
    fn of(&self, key: &ScopedKey) -> &Shard {
        // The remainder is below SHARDS, so it fits an index of any width.
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        &self.shards[index]
    }
}

/// The keys that this process works on.
#[derive(Clone)]
pub(super) struct Flights(Arc<Shards>);

impl Flights {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shards {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }))
    }

    pub(super) fn board(&self, key: &ScopedKey, fingerprint: &Arc<Fingerprint>) -> Boarding {
        let mut aloft = self
            .0
            .of(key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match aloft.entry(key.clone()) {
            Entry::Occupied(entry) => Boarding::Follower(Follower {
                fingerprint: Arc::clone(&entry.get().fingerprint),
                landing: entry.get().landing.clone(),
            }),
            Entry::Vacant(entry) => {
                let (sender, landing) = watch::channel(Landing::Boarding);
                entry.insert(Aloft {
                    fingerprint: Arc::clone(fingerprint),
                    landing,
                    lease: None,
                });
                Boarding::Leader(Flight {
                    key: key.clone(),
                    flights: self.clone(),
                    landing: sender,
                })
            }
        }
    }

    /// The claims of this process whose leases were last confirmed at least `age` ago.
    pub(super) fn unconfirmed_for(&self, age: Duration) -> Vec<(ScopedKey, Arc<Lease>)> {
        let mut due = Vec::new();
        for shard in &self.0.shards {
            let aloft = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let leases = aloft.iter().filter_map(|(key, flight)| {
                let lease = flight.lease.as_ref()?;
                let is_due = lease.unconfirmed_for().is_some_and(|since| since >= age);
                is_due.then(|| (key.clone(), Arc::clone(lease)))
            });
            due.extend(leases);
        }
        due
    }
}

/// The leader's place. Dropping it ends the flight.
pub(super) struct Flight {
    key: ScopedKey,
    flights: Flights,
    landing: watch::Sender<Landing>,
}

impl Flight {
    /// Notes that the leader holds the key's claim, by this lease.
    pub(super) fn claimed(&self, lease: &Arc<Lease>) {
        let mut aloft = self
            .flights
            .0
            .of(&self.key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = aloft.get_mut(&self.key) {
            flight.lease = Some(Arc::clone(lease));
        }
        drop(aloft);
        self.landing.send_replace(Landing::Claimed);
    }

    /// Notes that the leader has found a claim of the same request, or that it is gone again.
    pub(super) fn sees_claim(&self, is_there: bool) {
        let landing = match is_there {
            true => Landing::Claimed,
            false => Landing::Boarding,
        };
        self.landing.send_replace(landing);
    }

    /// Ends the flight with an answer, which every follower gets.
    pub(super) fn land(self, answer: &Answer) {
        let replayed = Answer {
            replayed: true,
            ..answer.clone()
        };
        self.landing.send_replace(Landing::Answered(replayed));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights
            .0
            .of(&self.key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}
