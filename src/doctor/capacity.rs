//! Connections: the server must have enough for the pool of a node.

use sqlx::PgConnection;

use super::Finding;
use crate::config::ServeArgs;
use crate::database::{self, Bounded, Limit, Limits};

/// Two lanes keep one connection each, and two while commits are slow, recovery works on eight keys at once, and requests need some.
const FEWEST_SOUND: u32 = 12;

pub(super) async fn examine(connection: &mut PgConnection, args: &ServeArgs) -> Vec<Finding> {
    let wanted = args.database_max_connections;
    let server = database::limits(connection).bounded().await;
    let server = server.map(|connections| against_server(wanted, &connections));
    vec![Finding::or_unseen("connections", server), pool(wanted)]
}

fn pool(wanted: u32) -> Finding {
    const NAME: &str = "pool";
    let found = format!("at most {wanted} connections per node");
    if wanted < FEWEST_SOUND {
        let advice = format!(
            "group commit and recovery take up to ten of them: set PAYONCE_DATABASE_MAX_CONNECTIONS to {FEWEST_SOUND} or more"
        );
        return Finding::warning(NAME, found, advice);
    }
    Finding::ok(NAME, found)
}

fn against_server(wanted: u32, server: &Limits) -> Finding {
    const NAME: &str = "connections";
    let Limit {
        connections: limit,
        whose,
    } = server.tightest();
    let found = format!(
        "{whose} allows {limit}, {} are in use by others, and a node uses up to {wanted}",
        server.used
    );
    let used = u32::try_from(server.used).unwrap_or(0);
    let advice = "raise max_connections (or the limit of the role or database), or lower PAYONCE_DATABASE_MAX_CONNECTIONS: with fewer connections a node works, but more slowly";
    if wanted > limit {
        Finding::problem(NAME, found, advice)
    } else if wanted > limit.saturating_sub(used) {
        Finding::warning(NAME, found, advice)
    } else {
        Finding::ok(NAME, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn the_tightest_limit_counts() {
        let server = Limits {
            limit: 103,
            reserved: 3,
            role_limit: -1,
            database_limit: -1,
            used: 0,
        };
        let verdict = |wanted, change: fn(&mut Limits)| {
            let mut server = server.clone();
            change(&mut server);
            against_server(wanted, &server).verdict
        };
        assert_eq!(verdict(100, |_| ()), Verdict::Ok);
        assert_eq!(verdict(101, |_| ()), Verdict::Problem);
        assert_eq!(
            verdict(20, |server| server.role_limit = 19),
            Verdict::Problem
        );
        assert_eq!(
            verdict(20, |server| server.database_limit = 19),
            Verdict::Problem
        );
        assert_eq!(verdict(20, |server| server.used = 80), Verdict::Ok);
        assert_eq!(verdict(20, |server| server.used = 81), Verdict::Warning);
    }
}
