//! PostgreSQL's intervals.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;

/// Returns a duration as PostgreSQL takes it, in microseconds. A longer one than fits (292,000 years) becomes the longest that does.
///
/// ```
/// use std::time::Duration;
///
/// use payonce_engine::database::interval;
///
/// assert_eq!(interval(Duration::from_secs(5)).microseconds, 5_000_000);
/// ```
pub fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
