use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::idempotency::clock::Moment;

/// A call returns this long before its time is over, so that the caller gets its result. The caller's own time-out would lose a
/// "nothing happened".
const MARGIN: Duration = Duration::from_millis(50);

/// An attempt with less time than this is not made.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(20);

/// Minimum time until a hung attempt is given up. A longer call gives it up after half of its time, to leave room for a second
/// attempt.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);

/// The first pause; each further one is twice as long, until they are [`LONGEST_PAUSE`]. Jitter makes each up to twice as
/// long again, so that calls that failed together do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The time that one call of the trait may take, including its retries.
///
/// It continues to run while the machine is suspended: after a day of that the gateway has forgotten the call's key, and a further
/// attempt would be a second call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    began: Moment,
    /// Counted from the beginning.
    ends_after: Duration,
    patience: Duration,
}

impl Budget {
    /// A budget that begins now.
    pub(super) fn new(request_time: Duration) -> Self {
        let margin = MARGIN.min(request_time / 10);
        Self {
            began: Moment::now(),
            ends_after: request_time - margin,
            patience: SHORTEST_PATIENCE.max(request_time / 2),
        }
    }

    fn left(self) -> Duration {
        self.ends_after.saturating_sub(self.began.elapsed())
    }

    /// How long an attempt that begins now may take. Returns `None` if it is too late for one.
    pub(super) fn attempt(self) -> Option<Duration> {
        let left = self.left();
        (left >= SHORTEST_ATTEMPT).then(|| left.min(self.patience))
    }

    /// The same budget, limited to `time`. For a step that must not delay a result that is known already.
    pub(super) fn at_most(self, time: Duration) -> Self {
        Self {
            ends_after: self.ends_after.min(self.began.elapsed() + time),
            ..self
        }
    }

    /// Whether an attempt that takes `needed` fits in after a pause.
    pub(super) fn allows(self, pause: Duration, needed: Duration) -> bool {
        pause + needed.max(SHORTEST_ATTEMPT) <= self.left()
    }
}

/// Returns growing pauses with jitter, without an end. The budget ends them.
pub(super) fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_between_half_a_second_and_a_second() {
        let millis = [50, 100, 200, 400, 500, 500, 500];
        for (pause, least) in pauses().zip(millis.map(Duration::from_millis)) {
            assert!(pause >= least && pause <= least * 2, "{pause:?} {least:?}");
        }
    }

    /// A budget with this much time left.
    fn left(millis: u64) -> Budget {
        Budget {
            ends_after: Duration::from_millis(millis),
            ..Budget::new(Duration::from_secs(10))
        }
    }

    #[test]
    fn an_attempt_takes_half_of_the_time_or_what_is_left() {
        assert_eq!(left(9_950).attempt(), Some(Duration::from_secs(5)));
        let attempt = left(4_000).attempt().expect("time for it");
        assert!(
            (3_000..=4_000).contains(&attempt.as_millis()),
            "{attempt:?}"
        );
        assert_eq!(left(19).attempt(), None);
        assert_eq!(left(0).attempt(), None);
    }

    #[test]
    fn a_short_time_is_one_attempts() {
        let budget = Budget::new(Duration::from_millis(900));
        let attempt = budget.attempt().expect("time for it");
        assert!((500..=850).contains(&attempt.as_millis()), "{attempt:?}");
    }

    #[test]
    fn a_pause_leaves_time_for_what_follows() {
        let millis = Duration::from_millis;
        assert!(left(4_000).allows(millis(1_000), millis(2_000)));
        assert!(!left(4_000).allows(millis(1_000), millis(3_001)));
        assert!(!left(1_000).allows(millis(990), Duration::ZERO));
    }
}
