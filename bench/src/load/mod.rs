//! The load generator: HTTP/1.1 over persistent connections. It is as cheap as possible, because it shares the machine with the
//! measured service.
//!
//! Requests are written from one prepared buffer and answers read into another; a thread has its own runtime and its share of the
//! connections, so the threads share only a counter. [`closed`] sends the next request when the last one is answered, which
//! measures throughput; [`open`] sends at a given rate, answered or not, which measures latency.

pub mod closed;
mod connection;
pub mod open;
mod response;
pub mod storm;
mod tally;

pub use self::connection::Connection;
pub use self::tally::{Latency, Tally, milliseconds};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::keys::{Key, KeyKind, shuffled};

/// The order in which keys are sent, over all connections.
#[derive(Clone, Debug)]
pub struct Keys {
    kind: KeyKind,
    order: Order,
    next: Arc<AtomicU64>,
    /// The turn at which a share of them ends.
    end: u64,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// Each key once, without end.
    Fresh,
    /// This number of keys, again and again.
    Hot(u64),
    /// This number of keys, each once, in a scattered order.
    OnceEach(u64),
}

impl Keys {
    /// New keys without end.
    pub fn fresh(seed: u64) -> Self {
        Self::new(KeyKind::Uuid { seed }, Order::Fresh)
    }

    /// The first `count` keys over and over.
    pub fn hot(kind: KeyKind, count: u64) -> Self {
        Self::new(kind, Order::Hot(count))
    }

    /// The first `count` keys, each once.
    pub fn once_each(kind: KeyKind, count: u64) -> Self {
        Self::new(kind, Order::OnceEach(count))
    }

    fn new(kind: KeyKind, order: Order) -> Self {
        Self {
            kind,
            order,
            next: Arc::default(),
            end: u64::MAX,
        }
    }

    /// At most the next `count` of them. A later share continues after these.
    pub fn at_most(&self, count: u64) -> Self {
        let begun = self.next.load(Ordering::Relaxed).min(self.end);
        Self {
            end: begun.saturating_add(count),
            ..self.clone()
        }
    }

    /// The form of its keys.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the next key. Returns `None` if none is left.
    fn next(&self) -> Option<Key> {
        let turn = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |turn| {
                (turn < self.end).then_some(turn + 1)
            })
            .ok()?;
        let number = match self.order {
            Order::Fresh => turn,
            Order::Hot(count) => turn % count.max(1),
            Order::OnceEach(count) if turn >= count => return None,
            Order::OnceEach(count) => shuffled(turn, count),
        };
        Some(self.kind.key(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_their_order() {
        let take = |keys: &Keys, count: usize| -> Vec<Option<Key>> {
            (0..count).map(|_| keys.next()).collect()
        };
        let kind = KeyKind::Digits;
        let key = |number| Some(kind.key(number));
        assert_eq!(
            take(&Keys::hot(kind, 2), 4),
            [key(0), key(1), key(0), key(1)]
        );
        let once = take(&Keys::once_each(kind, 3), 4);
        assert_eq!(once[3], None);
        let mut found = once[..3].to_vec();
        found.sort();
        assert_eq!(found, [key(0), key(1), key(2)]);
        let cold = Keys::once_each(kind, 3);
        let share = take(&cold.at_most(2), 3);
        assert_eq!(share[2], None);
        let rest = take(&cold.at_most(2), 2);
        assert_eq!(rest[1], None);
        let mut found = [&share[..2], &rest[..1]].concat();
        found.sort();
        assert_eq!(found, [key(0), key(1), key(2)], "shares do not overlap");
        let fresh = Keys::fresh(1);
        let shared = fresh.clone();
        assert_ne!(fresh.next(), shared.next(), "clones share the counter");
    }
}
