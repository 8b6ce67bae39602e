//! The counts and latencies of answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::response::Response;

/// The longest latency that is recorded, in microseconds. A longer one counts as this.
const LONGEST_US: u64 = 60_000_000;

/// The answers of one run.
#[derive(Debug)]
pub struct Tally {
    /// All answers by status, including those before and after the measured time, because each leaves something in the database.
    pub answers: BTreeMap<u16, u64>,
    /// Those of them that are replays.
    pub replayed: u64,
    /// Answers within the measured time.
    pub measured: u64,
    /// Their latencies.
    pub waits_us: Histogram<u64>,
}

impl Tally {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            answers: BTreeMap::new(),
            replayed: 0,
            measured: 0,
            waits_us: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
        })
    }

    /// Counts an answer that arrived at `arrived` to a request of `since`.
    pub fn count(
        &mut self,
        response: Response,
        since: Instant,
        arrived: Instant,
        measure: &Measure,
    ) {
        *self.answers.entry(response.status).or_default() += 1;
        self.replayed += u64::from(response.replayed == Some(true));
        if measure.holds(arrived) {
            self.measured += 1;
            let wait = arrived.saturating_duration_since(since);
            let wait_us = u64::try_from(wait.as_micros()).unwrap_or(LONGEST_US);
            self.waits_us.saturating_record(wait_us.max(1));
        }
    }

    /// Adds the counts of another thread or round.
    pub fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        for (status, count) in &other.answers {
            *self.answers.entry(*status).or_default() += count;
        }
        self.replayed += other.replayed;
        self.measured += other.measured;
        self.waits_us.add(&other.waits_us)?;
        Ok(())
    }

    /// Answers with 201.
    pub fn created(&self) -> u64 {
        self.answers.get(&201).copied().unwrap_or(0)
    }

    /// Answers with anything else.
    pub fn others(&self) -> u64 {
        let others = self.answers.iter().filter(|(status, _)| **status != 201);
        others.map(|(_, count)| count).sum()
    }

    /// The latencies of the measured answers.
    pub fn latency(&self) -> Latency {
        let at = |quantile: f64| self.waits_us.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: self.waits_us.max() as f64 / 1e3,
        }
    }
}

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// The measured time: after the warm-up, and until no further requests are sent.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    pub begin: Instant,
    pub end: Instant,
}

impl Measure {
    fn holds(&self, time: Instant) -> bool {
        (self.begin..self.end).contains(&time)
    }
}

pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, replayed: bool) -> Response {
        Response {
            status,
            replayed: Some(replayed),
            body_at: 0,
            length: 0,
        }
    }

    #[test]
    fn every_answer_counts_and_only_those_in_time_are_measured() {
        let begin = Instant::now();
        let ms = |count| begin + Duration::from_millis(count);
        let measure = Measure {
            begin: ms(100),
            end: ms(200),
        };
        let mut tally = Tally::new().expect("a histogram");
        tally.count(answer(201, false), ms(0), ms(99), &measure);
        tally.count(answer(201, true), ms(90), ms(100), &measure);
        tally.count(answer(503, false), ms(190), ms(199), &measure);
        tally.count(answer(201, false), ms(190), ms(200), &measure);
        assert_eq!((tally.created(), tally.others()), (3, 1));
        assert_eq!((tally.measured, tally.replayed), (2, 1));
        let latency = tally.latency();
        assert!((8.9..9.1).contains(&latency.p50_ms), "{latency:?}");
        assert!((9.9..10.1).contains(&latency.max_ms), "{latency:?}");
    }

    #[test]
    fn tallies_add_up() {
        let now = Instant::now();
        let measure = Measure {
            begin: now,
            end: now + Duration::from_secs(1),
        };
        let mut sum = Tally::new().expect("a histogram");
        for wait_ms in [1, 3] {
            let mut tally = Tally::new().expect("a histogram");
            let arrived = now + Duration::from_millis(wait_ms);
            tally.count(answer(201, true), now, arrived, &measure);
            sum.add(&tally).expect("added");
        }
        assert_eq!((sum.created(), sum.measured, sum.replayed), (2, 2, 2));
        assert!((2.9..3.1).contains(&sum.latency().max_ms));
    }
}
