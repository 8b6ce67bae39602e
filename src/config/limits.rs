//! How often each merchant may call.

use std::num::NonZeroU32;

use clap::Args;

use super::value::count;
use crate::merchants::RateLimit;

/// A burst is set, and no rate that it belongs to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--rate-limit-burst (PAYONCE_RATE_LIMIT_BURST) needs --rate-limit (PAYONCE_RATE_LIMIT)")]
pub struct BurstWithoutLimit;

/// The rate limit of each merchant.
#[derive(Clone, Debug, Args)]
pub struct RateLimitArgs {
    /// Maximum number of requests that each merchant may send to this node per second; further requests are answered 429. Without
    /// it there is no limit.
    #[arg(long, env = "PAYONCE_RATE_LIMIT", value_name = "COUNT")]
    #[arg(value_parser = count)]
    pub rate_limit: Option<NonZeroU32>,
    /// Maximum number of requests that a merchant may send at once after a pause. Without it, as many as in one second.
    #[arg(long, env = "PAYONCE_RATE_LIMIT_BURST", value_name = "COUNT")]
    #[arg(value_parser = count)]
    pub rate_limit_burst: Option<NonZeroU32>,
}

impl RateLimitArgs {
    /// Returns the limit, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`BurstWithoutLimit`] if only the burst is set.
    pub fn limit(&self) -> Result<Option<RateLimit>, BurstWithoutLimit> {
        match (self.rate_limit, self.rate_limit_burst) {
            (None, Some(_)) => Err(BurstWithoutLimit),
            (None, None) => Ok(None),
            (Some(per_second), burst) => Ok(Some(RateLimit {
                per_second,
                burst: burst.unwrap_or(per_second),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_needs_a_rate_and_is_one_second_of_it_by_default() {
        let limit = |rate: u32, burst: u32| {
            RateLimitArgs {
                rate_limit: NonZeroU32::new(rate),
                rate_limit_burst: NonZeroU32::new(burst),
            }
            .limit()
            .map(|limit| limit.map(|limit| (limit.per_second.get(), limit.burst.get())))
        };
        assert_eq!(limit(0, 0), Ok(None));
        assert_eq!(limit(0, 5), Err(BurstWithoutLimit));
        assert_eq!(limit(7, 0), Ok(Some((7, 7))));
        assert_eq!(limit(7, 5), Ok(Some((7, 5))));
    }
}
