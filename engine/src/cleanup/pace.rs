//! How fast the clean-up goes: at full speed while it is alone, gently beside other writers, and never so gently that expired keys
//! pile up.
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

/// A batch may take this many times what the quickest small one took, if that is longer: most of that is the disk's own time for a
/// flush, which a smaller batch would pay as well.
const OVER_THE_QUICKEST: u32 = 3;

/// How many times as long as a batch the pause after it is, beside other writers. Deletes bring checkpoints closer, and commits wait
/// while a checkpoint syncs its files. The slower the clean-up goes, the rarer that is.
const PAUSE: u32 = 9;

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
    /// Where the log was after the last batch.
    written: Option<i64>,
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
            written: None,
            quickest: None,
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

    /// After a batch that took `time`: the pause before the next, whose size is set. `spare` is how long the clean-up can wait
    /// without falling behind.
    pub(super) fn after_batch(
        &mut self,
        now: Instant,
        time: Duration,
        written: sqlx::Result<i64>,
        spare: Duration,
    ) -> Duration {
        self.written = written.ok();
        let beside_others = now.duration_since(self.others_seen) < MEMORY;
        let quickest = self.quickest.map_or(time, |quickest| {
            let is_small = self.batch_size <= FIRST_BATCH;
            // A disk that has become slower is believed after a few batches.
            let grown = quickest + quickest / 16;
            time.min(if is_small { grown } else { quickest })
        });
        self.quickest = Some(quickest);
        let target = if beside_others { BESIDE_OTHERS } else { ALONE };
        let target = target.max(quickest * OVER_THE_QUICKEST);
        if time < target / 2 || spare.is_zero() {
            self.batch_size = self.batch_size.saturating_mul(2).min(self.most);
        } else if time > target {
            self.batch_size = (self.batch_size / 2).max(SMALLEST_BATCH).min(self.most);
        }
        if beside_others {
            (time * PAUSE).min(spare)
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
        written: i64,
        flush: Duration,
        spare: Duration,
    }

    impl Rehearsal {
        fn new(most: u32) -> Self {
            let now = Instant::now();
            Self {
                pace: Pace::new(most, now),
                now,
                written: 0,
                flush: Duration::ZERO,
                spare: AMPLE,
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
                let written = Ok(self.written);
                pause = self.pace.after_batch(self.now, time, written, self.spare);
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
                pace.after_batch(now + MEMORY, Duration::from_millis(time), Ok(0), AMPLE);
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
            let pause =
                pace.after_batch(now, BESIDE_OTHERS, Err(sqlx::Error::WorkerCrashed), AMPLE);
            assert!(!pause.is_zero());
        }
    }

    /// 32 keys take longer there than a batch should, so that smaller batches would be nothing but flushes.
    #[test]
    fn on_a_slow_disk_a_batch_is_worth_its_flush() {
        let mut cleanup = Rehearsal::new(5000);
        cleanup.flush = Duration::from_millis(2);
        let gentle = cleanup.keys_a_second();
        assert!(gentle > 5000.0, "{gentle}");
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
