//! Elapsed time that also counts a suspended process or machine.

use std::time::{Duration, Instant, SystemTime};

/// A moment of this process.
///
/// The monotonic clock does not run while a machine is suspended; the wall clock does, but may be stepped back. The elapsed time is
/// the greater of the two. If it is wrong, it is too long, which is safe wherever it is used.
///
/// ```
/// use std::time::Duration;
///
/// use payonce_engine::clock::Moment;
///
/// const LEASE: Duration = Duration::from_secs(5);
///
/// let asked = Moment::now();
/// // Here the machine may be suspended. `Instant` would not count that time.
/// let may_still_act = asked.elapsed() < LEASE;
/// assert!(may_still_act);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// The present moment.
    pub fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: wall_clock(),
        }
    }

    /// Returns the time since then, which is never too short.
    pub fn elapsed(self) -> Duration {
        let by_wall = wall_clock().duration_since(self.wall).unwrap_or_default();
        self.monotonic.elapsed().max(by_wall)
    }
}

#[cfg(not(feature = "failpoints"))]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A test moves the wall clock of a process, as a suspended machine's moves: `PAYONCE_TEST_CLOCK` names a file with the seconds.
#[cfg(feature = "failpoints")]
fn wall_clock() -> SystemTime {
    let moved = std::env::var_os("PAYONCE_TEST_CLOCK")
        .and_then(|file| std::fs::read_to_string(file).ok())
        .and_then(|seconds| seconds.trim().parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    SystemTime::now() + moved
}
