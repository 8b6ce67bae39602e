//! How fast the clean-up goes: as fast as it can while it is alone, and gently beside others.
//!
//! What a batch deletes is flushed by its commit, and a payment that commits at that moment waits for it: the write-ahead log
//! of a few thousand deletes is some megabytes. Whether others are at work is seen by the log itself, which grows between two
//! batches only by what others write.

use std::time::Duration;

use tokio::time::Instant;

/// How long a batch takes while no other writer is seen.
const ALONE: Duration = Duration::from_millis(10);

/// How long it takes beside others.
const BESIDE_OTHERS: Duration = Duration::from_millis(1);

/// How much longer than a batch the pause after it is, beside others. What is deleted makes checkpoints due, and while one of
/// them syncs its files, commits stand still: the slower it goes, the rarer that is.
const PAUSE: u32 = 9;

/// For how long others are taken to be there after they were last seen. A clean-up begins as if it had just seen them.
const MEMORY: Duration = Duration::from_millis(150);

/// The first batch. It grows for as long as it is quick.
const FIRST_BATCH: u32 = 64;

/// Smaller ones would be more commits than deletes.
const SMALLEST_BATCH: u32 = 32;

/// The pace of one clean-up.
pub(super) struct Pace {
    /// How many keys the next batch has at most.
    pub(super) batch_size: u32,
    most: u32,
    others_seen: Instant,
    /// Where the log was after the last batch.
    written: Option<i64>,
}

impl Pace {
    /// `most`: the largest batch, at least 1.
    pub(super) fn new(most: u32, now: Instant) -> Self {
        Self {
            batch_size: most.min(FIRST_BATCH),
            most,
            others_seen: now,
            written: None,
        }
    }

    /// Called before a batch. `written` is the position of the write-ahead log; without it the clean-up goes gently.
    pub(super) fn look(&mut self, now: Instant, written: sqlx::Result<i64>) {
        let grown = match (written, self.written) {
            (Ok(written), Some(before)) => written > before,
            (Ok(_), None) => false,
            (Err(_), _) => true,
        };
        if grown {
            self.others_seen = now;
        }
    }

    /// After a batch that took `time`: the pause before the next, whose size is set.
    pub(super) fn after_batch(
        &mut self,
        now: Instant,
        time: Duration,
        written: sqlx::Result<i64>,
    ) -> Duration {
        self.written = written.ok();
        let beside_others = now.duration_since(self.others_seen) < MEMORY;
        let target = if beside_others { BESIDE_OTHERS } else { ALONE };
        if time > target {
            self.batch_size = (self.batch_size / 2).max(SMALLEST_BATCH).min(self.most);
        } else if time < target / 2 {
            self.batch_size = self.batch_size.saturating_mul(2).min(self.most);
        }
        if beside_others {
            time * PAUSE
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clean-up whose batches take 4 µs a key.
    struct Rehearsal {
        pace: Pace,
        now: Instant,
        written: i64,
    }

    impl Rehearsal {
        fn new(most: u32) -> Self {
            let now = Instant::now();
            Self {
                pace: Pace::new(most, now),
                now,
                written: 0,
            }
        }

        /// Goes on until size and pause have settled; the pause.
        fn settle(&mut self, others_write: bool) -> Duration {
            let mut pause = Duration::ZERO;
            for _ in 0..200 {
                self.written += i64::from(others_write);
                self.pace.look(self.now, Ok(self.written));
                let time = self.time_of_a_batch();
                self.written += 1;
                self.now += time;
                pause = self.pace.after_batch(self.now, time, Ok(self.written));
                self.now += pause;
            }
            pause
        }

        fn time_of_a_batch(&self) -> Duration {
            Duration::from_micros(4) * self.pace.batch_size
        }
    }

    #[test]
    fn alone_it_is_fast_and_beside_others_it_is_gentle_and_pauses() {
        let mut cleanup = Rehearsal::new(5000);
        for _ in 0..2 {
            assert!(!cleanup.settle(true).is_zero());
            let gentle = cleanup.time_of_a_batch();
            assert!(
                (BESIDE_OTHERS / 2..=BESIDE_OTHERS).contains(&gentle),
                "{gentle:?}"
            );
            assert!(cleanup.settle(false).is_zero());
            let fast = cleanup.time_of_a_batch();
            assert!((ALONE / 2..=ALONE).contains(&fast), "{fast:?}");
        }
    }

    #[test]
    fn a_batch_is_never_larger_than_was_asked_for() {
        for most in [1, 10, 40, 5000] {
            let now = Instant::now();
            let mut pace = Pace::new(most, now);
            for time in [0, 1, 0, 1000, 1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
                assert!((1..=most).contains(&pace.batch_size), "{}", pace.batch_size);
                pace.after_batch(now + MEMORY, Duration::from_millis(time), Ok(0));
            }
            assert_eq!(pace.batch_size, most);
        }
    }

    #[test]
    fn where_the_log_cannot_be_seen_it_is_gentle() {
        let mut now = Instant::now();
        let mut pace = Pace::new(5000, now);
        for _ in 0..3 {
            now += MEMORY;
            pace.look(now, Err(sqlx::Error::WorkerCrashed));
            let pause = pace.after_batch(now, BESIDE_OTHERS, Err(sqlx::Error::WorkerCrashed));
            assert!(!pause.is_zero());
        }
    }
}
