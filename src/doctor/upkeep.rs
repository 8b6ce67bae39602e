//! Unfinished keys that are not resolved, and expired keys that are not deleted.

use std::time::Duration;

use sqlx::PgConnection;

use super::{Finding, store};
use crate::database::has_sqlstate;

/// Past this age, the gateway is only queried about a key and not called again (docs/DESIGN.md).
const NEVER_CALLED_AGAIN: Duration = Duration::from_secs(20 * 60 * 60);

/// The clean-up should run hourly. A key that is left after two hours means that it does not run.
pub(super) const CLEANUP_OVERDUE: Duration = Duration::from_secs(2 * 60 * 60);

/// Recovery takes over a key within seconds after its lease. A key that is left after this time means that it does not run.
pub(super) const STUCK_FOR: Duration = Duration::from_secs(60);

pub(super) async fn examine(connection: &mut PgConnection) -> Vec<Finding> {
    let stuck = store::stuck_keys(connection, STUCK_FOR).await;
    let overdue = store::overdue_keys(connection, CLEANUP_OVERDUE).await;
    vec![
        of("stuck-keys", stuck, |stuck| stuck_keys(&stuck)),
        of("clean-up", overdue, clean_up),
    ]
}

/// A database without the schema has no keys. Another check reports the missing schema.
fn of<T>(name: &'static str, seen: sqlx::Result<T>, judge: impl FnOnce(T) -> Finding) -> Finding {
    match seen {
        Err(error) if is_undefined_table(&error) => Finding::ok(name, "there are no keys yet"),
        seen => Finding::or_unseen(name, seen.map(judge)),
    }
}

pub(super) fn is_undefined_table(error: &sqlx::Error) -> bool {
    has_sqlstate(error, &["42P01"])
}

/// A table or a column that an older schema does not have.
pub(super) fn is_undefined(error: &sqlx::Error) -> bool {
    has_sqlstate(error, &["42P01", "42703"])
}

fn stuck_keys(stuck: &store::Stuck) -> Finding {
    const NAME: &str = "stuck-keys";
    if stuck.count == 0 {
        return Finding::ok(NAME, "none");
    }
    let age = Duration::from_secs(stuck.oldest.as_secs());
    let found = format!(
        "{} in PROCESSING without an owner, the oldest for {}",
        stuck.count,
        humantime::format_duration(age)
    );
    let advice = "list them with `payonce idempotency-keys list --stuck`, and run `payonce recover`; see \"Stuck keys\" in docs/OPERATIONS.md";
    if stuck.oldest > NEVER_CALLED_AGAIN {
        return Finding::problem(NAME, found, advice);
    }
    Finding::warning(NAME, found, advice)
}

fn clean_up(overdue: i64) -> Finding {
    const NAME: &str = "clean-up";
    if overdue == 0 {
        return Finding::ok(NAME, "no key expired more than two hours ago");
    }
    let most = if overdue == store::MOST_COUNTED {
        "at least "
    } else {
        ""
    };
    Finding::warning(
        NAME,
        format!("{most}{overdue} keys expired two hours ago or earlier"),
        "run payonce-cleanup hourly (deploy/crontab.example); answers stay correct, but the table grows",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_stuck_key_becomes_a_problem_when_it_is_never_called_again() {
        let stuck = |count, hours: u64| {
            let oldest = Duration::from_secs(hours * 60 * 60);
            stuck_keys(&store::Stuck { count, oldest }).verdict
        };
        assert_eq!(stuck(0, 0), Verdict::Ok);
        assert_eq!(stuck(1, 20), Verdict::Warning);
        assert_eq!(stuck(1, 21), Verdict::Problem);
    }
}
