//! A queue for each key, and a bound on how many of a key's are let in at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::idempotency::IdempotencyError;

/// For each key, lets at most `limit` in at the same time, in the order of their arrival. It holds only keys with someone in or
/// waiting. A clone is the same turnstile.
pub(crate) struct Turnstile<K: Eq + Hash>(Arc<Shared<K>>);

struct Shared<K> {
    limit: usize,
    capacity: usize,
    lines: Mutex<Lines<K>>,
}

struct Lines<K> {
    /// Sum of the lengths of all lines.
    length: usize,
    by_key: HashMap<K, Line>,
}

struct Line {
    /// Number of those who are in or wait.
    length: usize,
    places: Arc<Semaphore>,
}

impl<K: Eq + Hash> Clone for Turnstile<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Clone + Eq + Hash> Turnstile<K> {
    /// `limit` is for each key. `capacity` is the maximum number of those who are in or wait, for all keys together. One key may
    /// have as many as there is room left, so that there is always room for another key.
    pub(crate) fn new(limit: usize, capacity: usize) -> Self {
        Self(Arc::new(Shared {
            limit: limit.min(Semaphore::MAX_PERMITS),
            capacity,
            lines: Mutex::new(Lines {
                length: 0,
                by_key: HashMap::new(),
            }),
        }))
    }

    /// For each key a quarter of this number of connections, and at least one.
    pub(crate) fn quarter(connections: u32) -> Self {
        let quarter = usize::try_from(connections / 4).unwrap_or(1);
        Self::new(quarter.max(1), usize::MAX)
    }

    /// Waits for a turn, until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// [`IdempotencyError::Overloaded`] if the line is full, or if the turn does not come in time.
    pub(crate) async fn enter(
        &self,
        key: &K,
        deadline: Instant,
    ) -> Result<Turn<K>, IdempotencyError> {
        let (mut turn, places) = self.join(key)?;
        let permit = timeout_at(deadline, places.acquire_owned()).await;
        // The semaphore is never closed.
        turn.permit = permit.ok().and_then(Result::ok);
        match turn.permit {
            Some(_) => Ok(turn),
            None => Err(IdempotencyError::Overloaded),
        }
    }

    /// Whether it remembers no key.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let lines = self.0.lock();
        lines.by_key.is_empty() && lines.length == 0
    }

    fn join(&self, key: &K) -> Result<(Turn<K>, Arc<Semaphore>), IdempotencyError> {
        let mut lines = self.0.lock();
        let free = self.0.capacity.saturating_sub(lines.length);
        if lines.by_key.get(key).map_or(0, |line| line.length) >= free {
            return Err(IdempotencyError::Overloaded);
        }
        lines.length = lines.length.saturating_add(1);
        let line = lines.by_key.entry(key.clone()).or_insert_with(|| Line {
            length: 0,
            places: Arc::new(Semaphore::new(self.0.limit)),
        });
        line.length = line.length.saturating_add(1);
        let places = Arc::clone(&line.places);
        let turn = Turn {
            permit: None,
            key: key.clone(),
            turnstile: self.clone(),
        };
        Ok((turn, places))
    }
}

impl<K> Shared<K> {
    fn lock(&self) -> MutexGuard<'_, Lines<K>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn, or a place in the line for one. Dropping it lets the next one in.
pub(crate) struct Turn<K: Eq + Hash> {
    permit: Option<OwnedSemaphorePermit>,
    key: K,
    turnstile: Turnstile<K>,
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut lines = self.turnstile.0.lock();
        lines.length = lines.length.saturating_sub(1);
        if let Some(line) = lines.by_key.get_mut(&self.key) {
            line.length = line.length.saturating_sub(1);
            if line.length == 0 {
                lines.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    fn at_once<K: Clone + Eq + Hash>(turnstile: &Turnstile<K>, key: K) -> Option<Turn<K>> {
        let far = Instant::now() + Duration::from_secs(60);
        turnstile
            .enter(&key, far)
            .now_or_never()
            .and_then(Result::ok)
    }

    #[tokio::test]
    async fn each_key_has_its_turns_and_is_forgotten_after_the_last() {
        let turnstile = Turnstile::<&str>::quarter(8);
        let first = at_once(&turnstile, "acme").expect("its first");
        let second = at_once(&turnstile, "acme").expect("its second");
        assert!(at_once(&turnstile, "acme").is_none(), "a third has to wait");
        assert!(
            at_once(&turnstile, "other").is_some(),
            "another's is its own"
        );
        drop(first);
        let third = at_once(&turnstile, "acme").expect("in the first's place");
        drop((second, third));
        assert!(turnstile.is_empty());
    }

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline() {
        let turnstile = Turnstile::quarter(1);
        let held = at_once(&turnstile, "acme").expect("its only one");
        let refused = turnstile.enter(&"acme", Instant::now()).await.map(drop);
        assert!(matches!(refused, Err(IdempotencyError::Overloaded)));
        drop(held);
        assert!(at_once(&turnstile, "acme").is_some(), "free again");
    }

    #[tokio::test]
    async fn one_that_waits_is_next_and_the_lines_are_bounded() {
        let turnstile = Turnstile::new(1, 4);
        let far = Instant::now() + Duration::from_secs(60);
        let held = at_once(&turnstile, "a").expect("its only one");
        let mut waiting = Box::pin(turnstile.enter(&"a", far));
        assert!(waiting.as_mut().now_or_never().is_none());
        let full = turnstile.enter(&"a", far).now_or_never();
        assert!(
            matches!(full, Some(Err(IdempotencyError::Overloaded))),
            "half of it is its own at most"
        );
        let other = at_once(&turnstile, "b").expect("there is room for another");
        drop(held);
        assert!(
            at_once(&turnstile, "a").is_none(),
            "the one that waits is first"
        );
        assert!(waiting.now_or_never().is_some_and(|turn| turn.is_ok()));
        drop(other);
    }
}
