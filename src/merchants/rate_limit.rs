//! A rate limit bounds how many requests a merchant may send, so that the others are not affected.
//!
//! Each node counts by itself. Behind a proxy that spreads requests over N nodes, a merchant may send N times as many.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter as Governor};

/// After this number of requests, merchants whose whole burst is available again are forgotten. This bounds the memory by the other
/// merchants, plus this number.
const FORGET_EVERY: u32 = 10_000;

/// How many requests a merchant may send to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per second, over time.
    pub per_second: NonZeroU32,
    /// Maximum number of requests at once, after a pause.
    pub burst: NonZeroU32,
}

/// One count per merchant.
type Counts<C> =
    Governor<Arc<str>, DashMapStateStore<Arc<str>>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Counts each merchant's requests.
pub struct RateLimiter<C: Clock = DefaultClock> {
    governor: Counts<C>,
    clock: C,
    asked: AtomicU32,
}

impl RateLimiter {
    /// A limiter that has seen no request.
    pub fn new(limit: RateLimit) -> Self {
        Self::with_clock(limit, DefaultClock::default())
    }
}

impl<C: Clock + Clone> RateLimiter<C> {
    fn with_clock(limit: RateLimit, clock: C) -> Self {
        let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
        Self {
            governor: Governor::new(quota, DashMapStateStore::default(), clock.clone()),
            clock,
            asked: AtomicU32::new(0),
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    ///
    /// The time to wait, if the request exceeds the limit.
    pub fn check(&self, merchant_id: &Arc<str>) -> Result<(), Duration> {
        // Wrapping around does no harm.
        if self.asked.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.governor.retain_recent();
            self.governor.shrink_to_fit();
        }
        let checked = self.governor.check_key(merchant_id);
        checked.map_err(|until| until.wait_time_from(self.clock.now()))
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.governor.len()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limiter(per_second: u32, burst: u32) -> (RateLimiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let some = |number| NonZeroU32::new(number).expect("not zero");
        let limit = RateLimit {
            per_second: some(per_second),
            burst: some(burst),
        };
        (RateLimiter::with_clock(limit, clock.clone()), clock)
    }

    #[test]
    fn a_burst_goes_and_then_so_many_a_second_for_each_merchant() {
        let (limiter, clock) = limiter(2, 3);
        let (acme, other) = (Arc::from("acme"), Arc::from("other"));
        let go = |merchant: &Arc<str>| {
            (0..9)
                .take_while(|_| limiter.check(merchant).is_ok())
                .count()
        };
        assert_eq!(go(&acme), 3);
        assert_eq!(limiter.check(&acme), Err(Duration::from_millis(500)));
        assert_eq!(go(&other), 3, "another merchant's is its own");
        clock.advance(Duration::from_millis(499));
        assert_eq!(limiter.check(&acme), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert_eq!(go(&acme), 1);
        clock.advance(Duration::from_secs(60));
        assert_eq!(go(&acme), 3, "no more than a burst is saved up");
    }

    #[test]
    fn merchants_that_are_gone_are_forgotten_and_the_others_are_not() {
        let (limiter, clock) = limiter(1, 2);
        let acme = Arc::from("acme");
        for number in 0..4 * FORGET_EVERY {
            if number % 1000 == 0 {
                clock.advance(Duration::from_secs(1));
                // It uses up its burst all the time.
                while limiter.check(&acme).is_ok() {}
            }
            limiter
                .check(&Arc::from(number.to_string()))
                .expect("its first");
            // Some thousands of them were there within the last seconds.
            let most = (FORGET_EVERY + FORGET_EVERY / 2) as usize;
            assert!(limiter.remembered() <= most, "{number}");
        }
        assert!(limiter.check(&acme).is_err(), "it is still remembered");
    }
}
