//! A queue with one line for each merchant. The lines take turns: a merchant with a thousand items does not delay another with
//! one.
//!
//! The queue is bounded, and so is each line: it may be as long as what is left of the queue. A merchant alone gets half of the
//! queue, and each of N merchants that fill it gets 1/(N + 1) of it, so there is always room for a new one.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap, RandomState};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How often a taker lets others run before it takes, while they bring more.
const MOST_YIELDS: u32 = 8;

/// Both ends of the queue. Each operation is a few steps under a lock that is not held while waiting.
pub(super) struct FairQueue<T> {
    capacity: usize,
    hasher: RandomState,
    lines: Mutex<Lines<T>>,
    arrived: Notify,
}

struct Lines<T> {
    /// Those that are not empty.
    waiting: HashMap<Line, VecDeque<T>>,
    /// Each of those once; the first has the next turn.
    turns: VecDeque<Line>,
    /// Items in all lines.
    length: usize,
    /// The number of items that the taker waits for.
    wanted: usize,
    is_closed: bool,
}

/// Which items are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turns {
    /// One of each line in turn.
    OfAll,
    /// Those of the line whose turn it is.
    OfOne,
}

/// The line is as long as it may be, or the queue is closed.
#[derive(Debug)]
pub(super) struct Full;

/// The merchant of an item, as a hash, so that no name is kept. Merchants with the same hash share a line. The hash is keyed, so
/// that nobody can choose a name with the hash of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Line(u64);

impl<T> FairQueue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            hasher: RandomState::new(),
            lines: Mutex::new(Lines {
                waiting: HashMap::new(),
                turns: VecDeque::new(),
                length: 0,
                wanted: 1,
                is_closed: false,
            }),
            arrived: Notify::new(),
        }
    }

    /// Returns the line in which a merchant's items wait.
    pub(super) fn line(&self, merchant: &str) -> Line {
        Line(self.hasher.hash_one(merchant))
    }

    /// Puts an item at the end of a line.
    pub(super) fn push(&self, line: Line, item: T) -> Result<(), Full> {
        let are_enough = {
            let mut lines = self.lock();
            lines.push(line, item, self.capacity)?;
            lines.length >= lines.wanted
        };
        if are_enough {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Waits until `wanted` items wait, or the queue is closed. There is one taker.
    ///
    /// What comes together is taken together: a taker that had to wait lets the tasks run that are ready by then, for as long as
    /// they bring more, up to `most`. A lone item does not wait for a timer.
    pub(super) async fn wait_for(&self, wanted: usize, most: usize) {
        loop {
            // Before the look, so that what comes after it is noticed.
            let arrived = self.arrived.notified();
            {
                let mut lines = self.lock();
                lines.wanted = wanted;
                if lines.is_closed || lines.length >= wanted {
                    return;
                }
            }
            arrived.await;
            self.gather(most).await;
        }
    }

    /// Takes at most `most` items, without waiting for any. Returns `None` if the queue is closed.
    pub(super) fn take(&self, most: usize, turns: Turns) -> Option<Vec<T>> {
        let mut lines = self.lock();
        if lines.is_closed {
            return None;
        }
        Some(match turns {
            Turns::OfAll => lines.take(most),
            Turns::OfOne => lines.take_line(most),
        })
    }

    /// Returns how many items wait.
    pub(super) fn length(&self) -> usize {
        self.lock().length
    }

    /// Lets the tasks run that are ready, again and again while they bring items, up to `most`.
    async fn gather(&self, most: usize) {
        let mut length = self.length();
        for _ in 0..MOST_YIELDS {
            if length >= most {
                return;
            }
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut length, self.length());
            if length <= before {
                return;
            }
        }
    }

    /// Takes all items, without waiting for any.
    pub(super) fn take_all(&self) -> Vec<T> {
        self.lock().take(usize::MAX)
    }

    /// Ends the queue: items that wait are dropped, new ones are refused, and takers get nothing.
    pub(super) fn close(&self) {
        let dropped = {
            let mut lines = self.lock();
            lines.is_closed = true;
            lines.length = 0;
            lines.turns.clear();
            std::mem::take(&mut lines.waiting)
        };
        drop(dropped);
        self.arrived.notify_waiters();
    }

    /// A panic elsewhere leaves the lines as they were.
    fn lock(&self) -> MutexGuard<'_, Lines<T>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Lines<T> {
    fn push(&mut self, line: Line, item: T, capacity: usize) -> Result<(), Full> {
        let free = capacity - self.length;
        if self.is_closed || free == 0 {
            return Err(Full);
        }
        match self.waiting.entry(line) {
            Entry::Occupied(line) if line.get().len() >= free => return Err(Full),
            Entry::Occupied(mut line) => line.get_mut().push_back(item),
            Entry::Vacant(line) => {
                self.turns.push_back(*line.key());
                line.insert(VecDeque::from([item]));
            }
        }
        self.length += 1;
        Ok(())
    }

    fn take(&mut self, most: usize) -> Vec<T> {
        let mut taken = Vec::with_capacity(most.min(self.length));
        while taken.len() < most
            && let Some(line) = self.turns.pop_front()
        {
            let Entry::Occupied(mut waiting) = self.waiting.entry(line) else {
                continue;
            };
            taken.extend(waiting.get_mut().pop_front());
            if waiting.get().is_empty() {
                waiting.remove();
            } else {
                self.turns.push_back(line);
            }
        }
        self.length -= taken.len();
        taken
    }

    fn take_line(&mut self, most: usize) -> Vec<T> {
        let Some(line) = self.turns.pop_front() else {
            return Vec::new();
        };
        let Entry::Occupied(mut waiting) = self.waiting.entry(line) else {
            return Vec::new();
        };
        let count = most.min(waiting.get().len());
        let taken: Vec<T> = waiting.get_mut().drain(..count).collect();
        if waiting.get().is_empty() {
            waiting.remove();
        } else {
            self.turns.push_back(line);
        }
        self.length -= taken.len();
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    /// How many went before the first that did not.
    fn push<T>(queue: &FairQueue<T>, merchant: &str, items: impl IntoIterator<Item = T>) -> usize {
        let pushed = items
            .into_iter()
            .map(|item| queue.push(queue.line(merchant), item));
        pushed.take_while(Result::is_ok).count()
    }

    fn take<T>(queue: &FairQueue<T>, most: usize) -> Vec<T> {
        queue.take(most, Turns::OfAll).expect("open")
    }

    #[test]
    fn lines_take_turns_and_each_keeps_its_order() {
        let queue = FairQueue::new(100);
        push(&queue, "storm", (1..=5).map(|n| ("storm", n)));
        push(&queue, "a", [("a", 1), ("a", 2)]);
        push(&queue, "b", [("b", 1)]);
        let first = [("storm", 1), ("a", 1), ("b", 1), ("storm", 2)];
        assert_eq!(take(&queue, 4), first);
        push(&queue, "b", [("b", 2)]);
        let rest = [("a", 2), ("storm", 3), ("b", 2), ("storm", 4), ("storm", 5)];
        assert_eq!(take(&queue, 9), rest);
        assert_eq!(take(&queue, 9), []);
    }

    #[test]
    fn a_whole_line_is_taken_and_the_next_one_has_the_next_turn() {
        let queue = FairQueue::new(100);
        push(&queue, "storm", (1..=5).map(|n| ("storm", n)));
        push(&queue, "a", [("a", 1), ("a", 2)]);
        let take = |most| queue.take(most, Turns::OfOne).expect("open");
        assert_eq!(take(3), [("storm", 1), ("storm", 2), ("storm", 3)]);
        assert_eq!(take(3), [("a", 1), ("a", 2)]);
        assert_eq!(take(3), [("storm", 4), ("storm", 5)]);
        assert_eq!(take(3), []);
    }

    #[test]
    fn whoever_comes_new_is_in_the_next_group_however_long_the_storm() {
        let queue = FairQueue::new(4096);
        push(&queue, "storm", (0..4096).map(|n| ("storm", n)));
        for turn in 0..8 {
            push(&queue, "new", [("new", turn)]);
            let group = take(&queue, 128);
            let at = group.iter().position(|item| *item == ("new", turn));
            assert!(at.is_some_and(|at| at < 2), "{at:?}");
            assert_eq!(group.len(), 128, "and the group is as full as ever");
        }
    }

    #[test]
    fn one_alone_fills_half_and_each_of_many_its_part_and_there_is_room_for_one_more() {
        let queue = FairQueue::new(4096);
        let names = ["a", "b", "c"];
        assert_eq!(push(&queue, "a", 0..5000), 2048);
        assert_eq!(push(&queue, "b", 0..5000), 1024);
        assert_eq!(push(&queue, "c", 0..5000), 512);
        assert_eq!(push(&queue, "a", [0]), 0);
        assert_eq!(push(&queue, "new", [0]), 1);
        // Worked off and filled again and again, all three come to the same.
        for _ in 0..200 {
            take(&queue, 256);
            for _ in 0..256 {
                for name in names {
                    push(&queue, name, [0]);
                }
            }
        }
        let lines = queue.lock();
        let lengths: Vec<usize> = lines.waiting.values().map(VecDeque::len).collect();
        assert!(
            lengths.iter().all(|length| (1000..1050).contains(length)),
            "{lengths:?}"
        );
    }

    #[test]
    fn the_queue_is_bounded_whoever_comes() {
        let queue = FairQueue::new(64);
        let pushed = (0..1000).filter(|n| push(&queue, &n.to_string(), [()]) == 1);
        assert_eq!(pushed.count(), 64);
        assert_eq!(take(&queue, 1000).len(), 64);
        let lines = queue.lock();
        assert!(lines.waiting.is_empty() && lines.turns.is_empty() && lines.length == 0);
    }

    /// Each poll stands for the other tasks' turn to run.
    #[test]
    fn a_taker_lets_others_run_for_as_long_as_they_bring_more() {
        let queue = FairQueue::new(64);
        let mut context = Context::from_waker(Waker::noop());
        let mut lone = pin!(queue.wait_for(1, 8));
        assert!(lone.as_mut().poll(&mut context).is_pending());
        push(&queue, "a", [0]);
        assert!(lone.as_mut().poll(&mut context).is_pending());
        assert!(lone.poll(&mut context).is_ready());
        assert_eq!(take(&queue, 8), [0]);

        let mut together = pin!(queue.wait_for(1, 8));
        assert!(together.as_mut().poll(&mut context).is_pending());
        for item in 1..=3 {
            push(&queue, "a", [item]);
            assert!(together.as_mut().poll(&mut context).is_pending());
        }
        assert!(together.poll(&mut context).is_ready());
        assert_eq!(take(&queue, 8), [1, 2, 3]);

        let mut full = pin!(queue.wait_for(1, 2));
        assert!(full.as_mut().poll(&mut context).is_pending());
        push(&queue, "a", [4, 5, 6]);
        assert!(full.poll(&mut context).is_ready());
        assert_eq!(take(&queue, 2), [4, 5]);
        assert_eq!(queue.take_all(), [6]);

        // Whoever goes on for ever does not hold up the others.
        let mut endless = pin!(queue.wait_for(1, 64));
        assert!(endless.as_mut().poll(&mut context).is_pending());
        let pushed = (0..64).take_while(|item| {
            push(&queue, "a", [*item]);
            endless.as_mut().poll(&mut context).is_pending()
        });
        assert!(pushed.count() < 63);
    }

    #[test]
    fn a_taker_waits_for_as_many_as_it_wants() {
        let queue = FairQueue::new(64);
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = pin!(queue.wait_for(3, 8));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        push(&queue, "a", [1, 2]);
        for _ in 0..=MOST_YIELDS {
            assert!(waiting.as_mut().poll(&mut context).is_pending());
        }
        push(&queue, "b", [3]);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(waiting.poll(&mut context).is_ready());
        // What is there is noticed without an arrival, and one who waits for less is woken by less.
        assert!(queue.wait_for(3, 8).now_or_never().is_some());
        assert_eq!(take(&queue, 8).len(), 3);
        let mut lone = pin!(queue.wait_for(1, 1));
        assert!(lone.as_mut().poll(&mut context).is_pending());
        push(&queue, "a", [4]);
        assert!(lone.poll(&mut context).is_ready());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_an_item_and_by_the_end() {
        let patience = Duration::from_secs(20);
        let queue = Arc::new(FairQueue::new(8));
        let wait = || {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move {
                queue.wait_for(1, 1).await;
                queue.take(1, Turns::OfAll)
            })
        };
        let waiting = wait();
        tokio::task::yield_now().await;
        assert_eq!(push(&queue, "a", [1]), 1);
        let taken = timeout(patience, waiting).await.expect("woken");
        assert_eq!(taken.expect("taken"), Some(vec![1]));

        let waiting = wait();
        tokio::task::yield_now().await;
        queue.close();
        let taken = timeout(patience, waiting).await.expect("woken");
        assert_eq!(taken.expect("ended"), None);
        assert_eq!(push(&queue, "a", [3]), 0);
    }
}
