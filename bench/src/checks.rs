//! The checks of each run: the clients' answers agree with the database.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{bail, ensure};

use crate::load::Tally;
use crate::store::Counts;

/// Number of checks that were made. All of them passed: a failed one ends the run.
#[derive(Debug, Default)]
pub struct Checks(AtomicU64);

impl Checks {
    /// Returns their number.
    pub fn made(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Checks that two numbers are equal.
    pub fn equal(&self, what: &str, expected: u64, found: u64) -> anyhow::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        if expected != found {
            bail!("check failed: {what}: {expected} expected, {found} found");
        }
        Ok(())
    }

    /// Checks that there are as many new keys and payments as answers with 201, and that none of these is a replay.
    pub fn created(&self, before: Counts, after: Counts, tally: &Tally) -> anyhow::Result<()> {
        let created = tally.created();
        ensure!(
            created > 0,
            "check failed: nothing was created: {:?}",
            tally.answers
        );
        let added = |before: i64, after: i64| u64::try_from(after - before).unwrap_or(0);
        self.equal("final keys", created, added(before.keys, after.keys))?;
        self.equal("payments", created, added(before.payments, after.payments))?;
        self.equal("replays of new keys", 0, tally.replayed)
    }

    /// Checks that all answers are replays, and that nothing is new.
    pub fn replayed(&self, before: Counts, after: Counts, tally: &Tally) -> anyhow::Result<()> {
        let created = tally.created();
        ensure!(
            created > 0,
            "check failed: nothing was replayed: {:?}",
            tally.answers
        );
        self.equal(
            "replays among the answers with 201",
            created,
            tally.replayed,
        )?;
        self.equal("answers with another status", 0, tally.others())?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        self.equal("keys after replays", count(before.keys), count(after.keys))?;
        self.equal(
            "payments after replays",
            count(before.payments),
            count(after.payments),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(keys: i64, payments: i64) -> Counts {
        Counts { keys, payments }
    }

    fn tally(answers: &[(u16, u64)], replayed: u64) -> Tally {
        Tally {
            answers: answers.iter().copied().collect(),
            replayed,
            ..Tally::new().expect("a histogram")
        }
    }

    #[test]
    fn new_rows_are_as_many_as_answers_with_201() {
        let checks = Checks::default();
        let created = |after, tally: &Tally| checks.created(counts(5, 5), after, tally);
        let three = tally(&[(201, 3), (503, 7)], 0);
        assert!(created(counts(8, 8), &three).is_ok());
        for (keys, payments) in [(7, 8), (9, 8), (8, 7), (8, 9), (5, 5), (2, 2)] {
            let found = created(counts(keys, payments), &three);
            assert!(found.is_err(), "{keys} keys, {payments} payments");
        }
        let one_replayed = tally(&[(201, 3)], 1);
        assert!(created(counts(8, 8), &one_replayed).is_err());
        let nothing = tally(&[(503, 7)], 0);
        assert!(created(counts(5, 5), &nothing).is_err());
    }

    #[test]
    fn replays_leave_nothing_behind() {
        let checks = Checks::default();
        let replayed = |after, tally: &Tally| checks.replayed(counts(5, 5), after, tally);
        let three = tally(&[(201, 3)], 3);
        assert!(replayed(counts(5, 5), &three).is_ok());
        assert!(replayed(counts(6, 5), &three).is_err());
        assert!(replayed(counts(5, 6), &three).is_err());
        assert!(replayed(counts(5, 5), &tally(&[(201, 3)], 2)).is_err());
        assert!(replayed(counts(5, 5), &tally(&[(201, 3), (409, 1)], 3)).is_err());
    }

    #[test]
    fn checks_are_counted() {
        let checks = Checks::default();
        assert!(checks.equal("a number", 1, 1).is_ok());
        assert!(checks.equal("a number", 1, 2).is_err());
        assert_eq!(checks.made(), 2);
    }
}
