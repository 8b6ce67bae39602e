//! How fast the clean-up goes: at full speed while it is alone, gently beside other writers, and never so gently that expired keys
//! pile up.
//!
//! What a batch deletes is flushed by its commit, and a payment that commits at that moment waits for it: the write-ahead log
//! of a few thousand deletes is some megabytes. Whether others are at work is seen by the numbers of transactions: each that writes
//! takes one.

use std::time::Duration;

use tokio::time::Instant;

use crate::store::Writers;

/// How long a batch takes while no other writer is seen.
const ALONE: Duration = Duration::from_millis(20);

/// How long it takes beside others.
const BESIDE_OTHERS: Duration = Duration::from_millis(1);

/// A batch may take this many times what the quickest small one took, if that is longer: most of that is the disk's own time for a
/// flush, which a smaller batch would pay as well.
const OVER_THE_QUICKEST: u32 = 3;

/// How many times as long as a batch the pause after it is, beside other writers. Deletes bring checkpoints closer, and commits wait
/// while a checkpoint syncs its files. The slower the clean-up goes, the rarer that is.
const PAUSE: u32 = 9;

/// Maximum number of keys a second beside other writers, unless the floor asks for more. After a checkpoint each page that a delete
/// touches is written to the log whole, and a page has three or four keys: this is some 10 MB/s of log, and as much of the table.
const KEYS_A_SECOND: u32 = 4000;

/// For how long others are taken to be there after they were last seen. A clean-up begins as if it had just seen them.
const MEMORY: Duration = Duration::from_millis(150);

/// The first batch. It grows for as long as it is quick.
const FIRST_BATCH: u32 = 64;

/// Smaller ones would be more commits than deletes.
const SMALLEST_BATCH: u32 = 32;

/// The share of a run's time, at each of its ends, that the floor leaves free: an hour in which more keys were made than in others is
/// worked off gently as well.
const SLACK: f64 = 0.1;

/// The pace of one clean-up.
pub(super) struct Pace {
    /// How many keys the next batch has at most.
    pub(super) batch_size: u32,
    most: u32,
    others_seen: Instant,
    /// The next transaction's number before the last batch.
    next_transaction: Option<i64>,
    /// The time of the quickest batch, of late, of at most [`FIRST_BATCH`] keys.
    quickest: Option<Duration>,
}

impl Pace {
    /// `most`: the largest batch, at least 1.
    pub(super) fn new(most: u32, now: Instant) -> Self {
        Self {
            batch_size: most.min(FIRST_BATCH),
            most,
            others_seen: now,
            next_transaction: None,
            quickest: None,
        }
    }

    /// Called before a batch. `own` is how many transactions the clean-up has made since the last call. If the others cannot be seen,
    /// the clean-up goes gently.
    pub(super) fn look(&mut self, now: Instant, writers: sqlx::Result<Writers>, own: u64) {
        let (others_write, next) = match writers {
            Ok(Writers {
                next,
                are_under_way,
            }) => {
                let made = self.next_transaction.map(|before| next.abs_diff(before));
                let others_made = made.is_some_and(|made| made > own);
                (others_made || are_under_way, Some(next))
            }
            Err(_) => (true, None),
        };
        self.next_transaction = next;
        if others_write {
            if !self.is_beside_others(now) {
                self.batch_size = self.batch_size.min(FIRST_BATCH);
            }
            self.others_seen = now;
        }
    }

    /// Whether others were seen of late.
    fn is_beside_others(&self, now: Instant) -> bool {
        now.duration_since(self.others_seen) < MEMORY
    }

    /// After a batch that took `time`: the pause before the next, whose size is set. `spare` is how long the clean-up can wait
    /// without falling behind.
    pub(super) fn after_batch(
        &mut self,
        now: Instant,
        time: Duration,
        spare: Duration,
    ) -> Duration {
        let beside_others = self.is_beside_others(now);
        let quickest = self.quickest.map_or(time, |quickest| {
            let is_small = self.batch_size <= FIRST_BATCH;
            // A disk that has become slower is believed after a few batches.
            let grown = quickest + quickest / 16;
            time.min(if is_small { grown } else { quickest })
        });
        self.quickest = Some(quickest);
        let at_most = Duration::from_secs(1) * self.batch_size / KEYS_A_SECOND;
        let target = if beside_others { BESIDE_OTHERS } else { ALONE };
        let target = target.max(quickest * OVER_THE_QUICKEST);
        if time < target / 2 || spare.is_zero() {
            self.batch_size = self.batch_size.saturating_mul(2).min(self.most);
        } else if time > target {
            self.batch_size = (self.batch_size / 2).max(SMALLEST_BATCH).min(self.most);
        }
        if beside_others {
            (time * PAUSE).max(at_most.saturating_sub(time)).min(spare)
        } else {
            Duration::ZERO
        }
    }
}

/// The least speed of a run: by its end it has reached the present.
///
/// Keys pass their time as fast as they were once made, so a run that works off stretches of that time evenly deletes each at
/// the rate at which its keys were made, times what it has to catch up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// From the time of the oldest key to where the present will be at the end.
    stretch: Duration,
    /// What the run may take.
    time: Duration,
}

impl Floor {
    /// `behind` is how long the oldest key was past its time when the run began, and `time` what the run may take.
    pub(super) fn new(behind: Duration, time: Duration) -> Self {
        Self {
            stretch: behind.saturating_add(time),
            time,
        }
    }

    /// How long a run may wait that has taken `elapsed` and has worked off `done`, from the time of the oldest key on.
    pub(super) fn spare(self, elapsed: Duration, done: Duration) -> Duration {
        let share = if self.stretch.is_zero() {
            1.0
        } else {
            done.div_duration_f64(self.stretch).min(1.0)
        };
        let due = self.time.mul_f64(SLACK + share * (1.0 - 2.0 * SLACK));
        due.saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMPLE: Duration = Duration::from_secs(60);

    /// A clean-up whose batches take 4 µs a key, and a flush.
    struct Rehearsal {
        pace: Pace,
        now: Instant,
        next: i64,
        flush: Duration,
        spare: Duration,
    }

    impl Rehearsal {
        fn new(most: u32) -> Self {
            let now = Instant::now();
            Self {
                pace: Pace::new(most, now),
                now,
                next: 0,
                flush: Duration::ZERO,
                spare: AMPLE,
            }
        }

        /// Goes on until size and pause have settled; the pause.
        fn settle(&mut self, others_write: bool) -> Duration {
            let mut pause = Duration::ZERO;
            for _ in 0..200 {
                // The last batch's, and one of another's.
                self.next += 1 + i64::from(others_write);
                self.pace.look(self.now, Ok(writers(self.next, false)), 1);
                let time = self.time_of_a_batch();
                self.now += time;
                pause = self.pace.after_batch(self.now, time, self.spare);
                self.now += pause;
            }
            pause
        }

        fn keys_a_second(&mut self) -> f64 {
            let pause = self.settle(true);
            f64::from(self.pace.batch_size) / (self.time_of_a_batch() + pause).as_secs_f64()
        }

        fn time_of_a_batch(&self) -> Duration {
            self.flush + Duration::from_micros(4) * self.pace.batch_size
        }
    }

    fn writers(next: i64, are_under_way: bool) -> Writers {
        Writers {
            next,
            are_under_way,
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
            for time in [9, 1, 9, 1000, 1000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] {
                assert!((1..=most).contains(&pace.batch_size), "{}", pace.batch_size);
                pace.after_batch(now + MEMORY, Duration::from_millis(time), AMPLE);
            }
            assert_eq!(pace.batch_size, most);
        }
    }

    /// While the disk stands still nobody's transactions end, and that is no sign of being alone.
    #[test]
    fn a_transaction_under_way_is_seen_and_so_is_one_of_two_batches_ago() {
        for (others, own, is_gentle) in [
            (writers(7, false), 0, false),
            (writers(7, true), 0, true),
            (writers(8, false), 0, true),
            (writers(8, false), 1, false),
            (writers(9, false), 1, true),
        ] {
            let start = Instant::now();
            let mut pace = Pace::new(5000, start);
            let now = start + MEMORY;
            pace.look(now, Ok(writers(7, false)), 0);
            pace.look(now, Ok(others), own);
            let pause = pace.after_batch(now, BESIDE_OTHERS, AMPLE);
            assert_eq!(!pause.is_zero(), is_gentle, "{others:?}, {own}");
            let later = now + MEMORY;
            pace.look(later, Ok(others), 0);
            let still = pace.after_batch(later, BESIDE_OTHERS, AMPLE);
            assert_eq!(!still.is_zero(), others.are_under_way, "{others:?}, {own}");
        }
    }

    #[test]
    fn where_the_others_cannot_be_seen_it_is_gentle() {
        let mut now = Instant::now();
        let mut pace = Pace::new(5000, now);
        for _ in 0..3 {
            now += MEMORY;
            pace.look(now, Err(sqlx::Error::WorkerCrashed), 0);
            let pause = pace.after_batch(now, BESIDE_OTHERS, AMPLE);
            assert!(!pause.is_zero());
        }
    }

    #[test]
    fn on_a_fast_disk_it_writes_no_more_than_others_can_bear() {
        let gentle = Rehearsal::new(5000).keys_a_second();
        let most = f64::from(KEYS_A_SECOND);
        assert!((most * 0.9..=most).contains(&gentle), "{gentle}");
    }

    /// 32 keys take longer there than a batch should, so that smaller batches would be nothing but flushes.
    #[test]
    fn on_a_slow_disk_a_batch_is_worth_its_flush() {
        let mut cleanup = Rehearsal::new(5000);
        cleanup.flush = Duration::from_millis(2);
        let gentle = cleanup.keys_a_second();
        assert!(gentle > 2000.0, "{gentle}");
        let bound = (OVER_THE_QUICKEST + 1) * cleanup.flush;
        assert!(cleanup.time_of_a_batch() <= bound);
    }

    #[test]
    fn without_time_to_spare_it_does_not_pause_and_its_batches_grow() {
        let mut cleanup = Rehearsal::new(5000);
        cleanup.flush = Duration::from_millis(2);
        cleanup.spare = Duration::ZERO;
        assert_eq!(cleanup.settle(true), Duration::ZERO);
        assert_eq!(cleanup.pace.batch_size, 5000);
    }

    #[test]
    fn a_run_is_even_and_reaches_the_present_before_its_time_is_over() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        // An hour's keys and those of the run itself, in ten minutes.
        let floor = Floor::new(minutes(60), minutes(10));
        assert_eq!(floor.spare(Duration::ZERO, Duration::ZERO), minutes(1));
        assert_eq!(floor.spare(minutes(1), Duration::ZERO), Duration::ZERO);
        assert_eq!(floor.spare(minutes(2), minutes(35)), minutes(3));
        assert_eq!(floor.spare(minutes(6), minutes(35)), Duration::ZERO);
        assert_eq!(floor.spare(minutes(8), minutes(70)), minutes(1));
        assert_eq!(floor.spare(minutes(9), minutes(70)), Duration::ZERO);
        let nothing = Floor::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(
            nothing.spare(Duration::ZERO, Duration::ZERO),
            Duration::ZERO
        );
    }
}
