//! The summary: one line for each demonstration, and the overall result.

use super::report::{Look, Page, Verdict};

/// How the demonstrations ended.
#[derive(Default)]
pub(super) struct Summary(Vec<Verdict>);

impl Summary {
    pub(super) fn add(&mut self, verdict: Verdict) {
        self.0.push(verdict);
    }

    /// Returns true if there were checks, and all of them passed.
    pub(super) fn all_hold(&self) -> bool {
        self.0.iter().all(holds) && self.0.iter().any(|verdict| verdict.checks > 0)
    }

    pub(super) fn print(&self, page: &mut Page) {
        page.line(Look::Plain, "");
        page.line(Look::Bold, "Summary");
        for verdict in &self.0 {
            print_verdict(page, verdict);
        }
        let total = |count: fn(&Verdict) -> usize| self.0.iter().map(count).sum::<usize>();
        let held = self.0.iter().filter(|verdict| holds(verdict)).count();
        let checks = total(|verdict| verdict.checks);
        let held_checks = checks - total(|verdict| verdict.failed);
        let seconds: f64 = self
            .0
            .iter()
            .map(|verdict| verdict.took.as_secs_f64())
            .sum();
        let look = if self.all_hold() {
            Look::Good
        } else {
            Look::Bad
        };
        let all = self.0.len();
        page.line(
            look,
            format_args!(
                "   {held} of {all} demonstrations hold, {held_checks} of {checks} checks, in {seconds:.1} s"
            ),
        );
    }
}

fn holds(verdict: &Verdict) -> bool {
    verdict.failed == 0 && verdict.checks > 0
}

fn print_verdict(page: &mut Page, verdict: &Verdict) {
    let (look, mark) = if holds(verdict) {
        (Look::Good, '✓')
    } else {
        (Look::Bad, '✗')
    };
    let held = verdict.checks - verdict.failed;
    let text = format_args!(
        "   {mark} {}. {:30} {held:2} of {:2} checks {:6.2} s",
        verdict.number,
        verdict.title,
        verdict.checks,
        verdict.took.as_secs_f64(),
    );
    page.line(look, text);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::report::tests::Paper;
    use super::*;

    fn verdict(number: usize, checks: usize, failed: usize) -> Verdict {
        Verdict {
            number,
            title: "Title",
            checks,
            failed,
            took: Duration::from_millis(1500),
        }
    }

    #[test]
    fn one_that_fails_fails_all() {
        let paper = Paper::default();
        let mut summary = Summary::default();
        summary.add(verdict(1, 3, 0));
        assert!(summary.all_hold());
        summary.add(verdict(2, 3, 1));
        assert!(!summary.all_hold());
        summary.print(&mut paper.page(false));
        let lines = paper.text();
        assert!(lines.contains("✓ 1. Title"), "{lines}");
        assert!(lines.contains("✗ 2. Title"), "{lines}");
        assert!(
            lines.contains("1 of 2 demonstrations hold, 5 of 6 checks, in 3.0 s"),
            "{lines}"
        );
    }

    #[test]
    fn what_checks_nothing_does_not_hold() {
        let mut summary = Summary::default();
        assert!(!summary.all_hold());
        summary.add(verdict(1, 0, 0));
        summary.add(verdict(2, 1, 0));
        assert!(!summary.all_hold());
    }
}
