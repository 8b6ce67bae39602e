//! The difference between this machine's clock and the database's.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use tokio::time::Instant;

use super::{Finding, store};

/// No decision depends on this machine's clock, but the order of ids, `updatedAt` and the expiry of cards do.
const LARGEST_SOUND_DIFFERENCE: Duration = Duration::from_secs(1);

/// Number of queries; the quickest one is the most exact.
const QUESTIONS: usize = 5;

/// The database's clock was read at some time between the query and its answer.
struct Sample {
    asked: SystemTime,
    round_trip: Duration,
    database: DateTime<Utc>,
}

pub(super) async fn examine(connection: &mut PgConnection) -> Finding {
    const NAME: &str = "clock";
    let mut samples = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        match sample(connection).await {
            Ok(sample) => samples.push(sample),
            Err(error) => return Finding::or_unseen(NAME, Err(error)),
        }
    }
    let quickest = samples.iter().min_by_key(|sample| sample.round_trip);
    quickest.map_or_else(
        || Finding::warning(NAME, "it was not checked", "run the doctor again"),
        judge,
    )
}

async fn sample(connection: &mut PgConnection) -> sqlx::Result<Sample> {
    let (asked, began) = (SystemTime::now(), Instant::now());
    let database = store::clock(connection).await?;
    Ok(Sample {
        asked,
        round_trip: began.elapsed(),
        database,
    })
}

fn judge(sample: &Sample) -> Finding {
    const NAME: &str = "clock";
    let half = sample.round_trip / 2;
    let here = DateTime::<Utc>::from(sample.asked + half);
    let difference = sample.database - here;
    let is_ahead = difference > chrono::TimeDelta::zero();
    let size = difference.abs().to_std().unwrap_or(Duration::MAX);
    let found = format!(
        "the database's clock is {} ms {} this machine's (± {:.1} ms)",
        size.as_millis(),
        if is_ahead { "ahead of" } else { "behind" },
        half.as_secs_f64() * 1e3,
    );
    // A difference within the round trip is not significant.
    if size.saturating_sub(half) > LARGEST_SOUND_DIFFERENCE {
        let advice = "keep both by NTP: ids, updatedAt and card expiry go by this machine's, leases and key expiry by the database's";
        return Finding::warning(NAME, found, advice);
    }
    Finding::ok(NAME, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_round_trip_bounds_what_counts_as_a_difference() {
        let asked = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = |ms: i64| DateTime::<Utc>::from(asked) + chrono::TimeDelta::milliseconds(ms);
        for (round_trip_ms, database_ms, verdict) in [
            (2, 1, Verdict::Ok),
            (2, 1001, Verdict::Ok),
            (2, 1003, Verdict::Warning),
            (2, -999, Verdict::Ok),
            (2, -1001, Verdict::Warning),
            (2000, 3000, Verdict::Ok),
            (2000, 3002, Verdict::Warning),
        ] {
            let sample = Sample {
                asked,
                round_trip: Duration::from_millis(round_trip_ms),
                database: at(database_ms),
            };
            let finding = judge(&sample);
            assert_eq!(finding.verdict, verdict, "{}", finding.found);
        }
    }
}
