//! The privileges of the role, compared with what the service's statements need.

use sqlx::PgConnection;

use super::{Finding, store};
use crate::config::ServeArgs;

const NAME: &str = "privileges";

/// The privileges that `payonce serve` needs on each table. The command line creates merchants and API keys.
pub const NEEDED: &[(&str, &[&str])] = &[
    ("api_keys", &["select"]),
    ("merchants", &["select"]),
    (
        "idempotency_keys",
        &["select", "insert", "update", "delete"],
    ),
    ("unsettled_keys", &["select", "insert", "delete"]),
    ("payments", &["select", "insert", "update", "delete"]),
    ("refunds", &["select", "insert", "update", "delete"]),
    ("fingerprint_secrets", &["select", "insert", "update"]),
    ("_sqlx_migrations", &["select"]),
];

/// The privileges that the console needs in addition. Of an operator's action it updates one column only, the outcome.
const NEEDED_BY_THE_CONSOLE: &[(&str, &[&str])] = &[
    ("operator_actions", &["select", "insert"]),
    ("refused_reuses", &["select", "insert", "update", "delete"]),
    ("traffic_minutes", &["select", "insert", "update", "delete"]),
];

pub(super) async fn examine(connection: &mut PgConnection, args: &ServeArgs) -> Finding {
    Finding::or_unseen(NAME, look(connection, args).await)
}

async fn look(connection: &mut PgConnection, args: &ServeArgs) -> sqlx::Result<Finding> {
    let role = store::role(connection).await?;
    let Some(schema) = role.schema else {
        return Ok(Finding::problem(
            NAME,
            format!(
                "{} has no privilege to use a schema of its search path",
                role.name
            ),
            format!("grant usage on schema public to {}", role.name),
        ));
    };
    let mut grants: Vec<String> = Vec::new();
    let by_the_console = match args.console.console_token {
        Some(_) => NEEDED_BY_THE_CONSOLE,
        None => &[],
    };
    for (table, privileges) in NEEDED.iter().chain(by_the_console) {
        let missing = store::missing_privileges(connection, table, privileges).await?;
        if !missing.is_empty() {
            let missing = missing.join(", ");
            grants.push(format!("grant {missing} on {table} to {}", role.name));
        }
    }
    // Even if there is nothing to apply, sqlx begins with a "create table if not exists".
    let cannot_migrate = !args.no_migrate && !role.may_create;
    let migrate_apart = format!(
        "start it with --no-migrate and migrate as the tables' owner (or grant create on schema {schema} to {})",
        role.name
    );
    if grants.is_empty() && cannot_migrate {
        let found = format!(
            "{} may do all that the service does, but not migrate",
            role.name
        );
        return Ok(Finding::warning(NAME, found, migrate_apart));
    }
    if grants.is_empty() {
        let found = format!("{} has all privileges that the service needs", role.name);
        return Ok(Finding::ok(NAME, found));
    }
    if cannot_migrate {
        grants.push(migrate_apart);
    }
    Ok(Finding::problem(
        NAME,
        format!("{} lacks privileges that the service needs", role.name),
        grants.join("; "),
    ))
}
