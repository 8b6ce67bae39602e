//! The schema's version, compared with this program's.

use sqlx::PgConnection;

use super::Finding;
use super::store::{self, Applied};
use crate::MIGRATOR;
use crate::config::ServeArgs;

const NAME: &str = "schema";

pub(super) async fn examine(connection: &mut PgConnection, args: &ServeArgs) -> Finding {
    // A role that may not create tables does not migrate, so pending migrations keep its service from starting.
    let role = store::role(connection).await;
    let no_migrate = args.no_migrate || role.is_ok_and(|role| !role.may_create);
    let applied = store::migrations(connection).await;
    Finding::or_unseen(
        NAME,
        applied.map(|applied| judge(applied.as_deref(), no_migrate)),
    )
}

fn judge(applied: Option<&[Applied]>, no_migrate: bool) -> Finding {
    let applied = applied.unwrap_or_default();
    if let Some(broken) = applied.iter().find(|migration| !migration.success) {
        return Finding::problem(
            NAME,
            format!("migration {} ended midway", broken.version),
            "look at PostgreSQL's log, repair what it left behind, delete its row from _sqlx_migrations, and run payonce migrate",
        );
    }
    let changed = MIGRATOR.iter().find(|ours| {
        let theirs = applied.iter().find(|theirs| theirs.version == ours.version);
        theirs.is_some_and(|theirs| theirs.checksum != *ours.checksum)
    });
    if let Some(changed) = changed {
        return Finding::problem(
            NAME,
            format!(
                "migration {} was applied with other content than this program's",
                changed.version
            ),
            "the database was migrated by another build: run that build, or restore a backup",
        );
    }
    let pending: Vec<String> = MIGRATOR
        .iter()
        .filter(|ours| applied.iter().all(|theirs| theirs.version != ours.version))
        .map(|ours| ours.version.to_string())
        .collect();
    if !pending.is_empty() {
        return pending_migrations(&pending, no_migrate);
    }
    let newest = MIGRATOR.iter().map(|ours| ours.version).max().unwrap_or(0);
    let newer = applied.iter().map(|theirs| theirs.version).max();
    if let Some(newer) = newer.filter(|version| *version > newest) {
        return Finding::warning(
            NAME,
            format!("at migration {newer}, newer than this program's {newest}"),
            "this is normal during an upgrade; afterwards, upgrade this node, too",
        );
    }
    Finding::ok(NAME, format!("at migration {newest}, this program's"))
}

fn pending_migrations(pending: &[String], no_migrate: bool) -> Finding {
    let found = format!("lacks migration {}", pending.join(", "));
    if no_migrate {
        return Finding::problem(
            NAME,
            found,
            "run payonce migrate: serve --no-migrate refuses to start",
        );
    }
    Finding::warning(
        NAME,
        found,
        "payonce serve applies them when it starts; payonce migrate does it now",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn current() -> Vec<Applied> {
        let applied = MIGRATOR.iter().map(|ours| Applied {
            version: ours.version,
            success: true,
            checksum: ours.checksum.to_vec(),
        });
        applied.collect()
    }

    #[test]
    fn each_way_to_differ_has_its_verdict() {
        let newer = Applied {
            version: 99_990_101,
            success: true,
            checksum: Vec::new(),
        };
        let mut ended_midway = current();
        ended_midway.last_mut().expect("a migration").success = false;
        let mut changed = current();
        changed.first_mut().expect("a migration").checksum.push(0);
        let mut older = current();
        older.pop();
        for (applied, no_migrate, verdict) in [
            (Some(current()), true, Verdict::Ok),
            (
                Some([current(), vec![newer]].concat()),
                true,
                Verdict::Warning,
            ),
            (Some(ended_midway), false, Verdict::Problem),
            (Some(changed), false, Verdict::Problem),
            (Some(older.clone()), false, Verdict::Warning),
            (Some(older), true, Verdict::Problem),
            (None, false, Verdict::Warning),
            (None, true, Verdict::Problem),
        ] {
            let finding = judge(applied.as_deref(), no_migrate);
            assert_eq!(finding.verdict, verdict, "{}", finding.found);
        }
    }
}
