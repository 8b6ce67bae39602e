//! Whether commits are slow, as a lane measures it.

use std::time::Duration;

use tokio::time::Instant;

/// A commit that takes this long waits for a disk or a standby rather than for a processor.
const SLOW: Duration = Duration::from_millis(1);

/// Number of slow commits in a row after which commits are slow. While processors are saturated, half of all commits take this long
/// on any disk, so a few in a row say nothing.
pub(super) const IN_A_ROW: u32 = 8;

/// A commit is measured once in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// So many times more often after a slow commit, until it is clear whether all of them are.
const OFTEN_IN_DOUBT: u32 = 20;

/// Commits are slow after several slow ones in a row, until the first that is not.
pub(super) struct Pace {
    slow: Duration,
    interval: Duration,
    measured: Option<Instant>,
    /// Slow commits since the last that was not.
    in_a_row: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(SLOW, INTERVAL)
    }
}

impl Pace {
    /// A commit that takes `slow` or longer is slow, and one is measured once in `interval`.
    pub(super) fn new(slow: Duration, interval: Duration) -> Self {
        Self {
            slow,
            interval,
            measured: None,
            in_a_row: 0,
        }
    }

    pub(super) fn is_slow(&self) -> bool {
        self.in_a_row >= IN_A_ROW
    }

    /// Returns true if a commit is to be measured at `now`.
    pub(super) fn begins_measuring(&mut self, now: Instant) -> bool {
        let is_in_doubt = (1..IN_A_ROW).contains(&self.in_a_row);
        let interval = if is_in_doubt {
            self.interval / OFTEN_IN_DOUBT
        } else {
            self.interval
        };
        let is_due = self
            .measured
            .is_none_or(|measured| now.duration_since(measured) >= interval);
        if is_due {
            self.measured = Some(now);
        }
        is_due
    }

    /// Notes how long a commit took. Returns true if [`Pace::is_slow`] changed.
    pub(super) fn note(&mut self, commit: Duration) -> bool {
        let was_slow = self.is_slow();
        self.in_a_row = if commit < self.slow {
            0
        } else {
            self.in_a_row.saturating_add(1)
        };
        self.is_slow() != was_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_slow_after_several_in_a_row_until_a_quick_one() {
        let mut pace = Pace::default();
        for turn in 1..=3 {
            for slow in 1..IN_A_ROW {
                assert!(!pace.note(SLOW) && !pace.is_slow(), "{turn}: {slow}");
            }
            assert!(pace.note(SLOW) && pace.is_slow());
            assert!(!pace.note(SLOW * 100) && pace.is_slow());
            assert!(pace.note(SLOW / 2) && !pace.is_slow());
            assert!(!pace.note(SLOW / 2));
            // One slow commit is forgotten.
            assert!(!pace.note(SLOW) && !pace.note(SLOW / 2));
        }
    }

    #[test]
    fn a_commit_is_measured_once_an_interval_and_more_often_in_doubt() {
        let mut pace = Pace::default();
        let begun = Instant::now();
        let often = INTERVAL / OFTEN_IN_DOUBT;
        let mut now = Duration::ZERO;
        assert!(pace.begins_measuring(begun));
        assert!(!pace.begins_measuring(begun + INTERVAL - often));
        for _ in 0..IN_A_ROW {
            now += if now.is_zero() { INTERVAL } else { often };
            assert!(!pace.begins_measuring(begun + now - often / 2));
            assert!(pace.begins_measuring(begun + now));
            pace.note(SLOW);
        }
        assert!(pace.is_slow());
        assert!(!pace.begins_measuring(begun + now + often));
        assert!(pace.begins_measuring(begun + now + INTERVAL));
    }
}
