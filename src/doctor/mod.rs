//! The doctor checks what a service depends on, before it is started or while it runs, and says what to do about each finding.
//!
//! It runs every check that it can: a check that fails is a finding, and the others still run. It changes nothing, and sends the
//! gateway no request that costs or moves anything.
//!
//! * `configuration`: settings that are valid, but questionable. Needs no connection.
//! * `server`, `clock`, `capacity`: the configuration of PostgreSQL.
//! * `cluster`: the nodes, where the tables are distributed.
//! * `schema`, `privileges`: the tables, and the privileges of the role.
//! * `secrets`: whether our secret signed the fingerprints in the database.
//! * `upkeep`: unfinished work, and keys that were not cleaned up.
//! * `cells`: which cell it is, and moves that have not come to their end.
//! * `gateway`: whether it answers.

mod capacity;
mod cells;
mod clock;
mod cluster;
mod configuration;
mod finding;
mod gateway;
mod privileges;
mod schema;
mod secrets;
mod server;
mod store;
mod upkeep;

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

pub use self::finding::{Finding, Report, Verdict};
pub use self::privileges::NEEDED as NEEDED_PRIVILEGES;
use crate::config::ServeArgs;
use crate::database::{self, Bounded};

/// Maximum time of all checks of the database. Each also has its own limit.
const PATIENCE: Duration = Duration::from_secs(15);

/// Checks everything that a `payonce serve` with these settings would depend on.
pub async fn examine(args: &ServeArgs) -> Report {
    let mut findings = configuration::examine(args);
    findings.push(cells::cell(args));
    let (on_database, on_gateway) =
        tokio::join!(examine_database(args), gateway::examine(&args.gateway));
    findings.extend(on_database);
    findings.extend(on_gateway);
    Report::new(findings)
}

async fn examine_database(args: &ServeArgs) -> Vec<Finding> {
    const NAME: &str = "database";
    let mut connection = match database::connect_once(&args.database.database_url).await {
        Ok(connection) => connection,
        Err(error) => {
            let advice = "start it, or correct DATABASE_URL; until then the database's other checks cannot be made";
            return vec![Finding::problem(NAME, finding::chain(&error), advice)];
        }
    };
    let mut findings = vec![Finding::ok(
        NAME,
        database::address(&args.database.database_url),
    )];
    let examined = timeout(
        PATIENCE,
        examine_connected(&mut connection, args, &mut findings),
    );
    if examined.await.is_err() {
        let found = format!("it did not answer within {} s", PATIENCE.as_secs());
        let advice =
            "check the network, and any pooler or proxy in between: the other checks were not made";
        findings.push(Finding::problem("database-answers", found, advice));
        return findings;
    }
    // The checks are done, so an error on closing the connection does not matter.
    drop(connection.close().bounded().await);
    findings
}

async fn examine_connected(
    connection: &mut PgConnection,
    args: &ServeArgs,
    findings: &mut Vec<Finding>,
) {
    findings.extend(server::examine(connection, args).await);
    findings.push(clock::examine(connection).await);
    findings.extend(cluster::examine(connection, args.database.allow_unsafe_database).await);
    findings.extend(capacity::examine(connection, args).await);
    findings.push(schema::examine(connection, args).await);
    findings.push(privileges::examine(connection, args).await);
    findings.push(secrets::examine(connection, args).await);
    findings.extend(upkeep::examine(connection).await);
    findings.push(cells::moves(connection).await);
}
