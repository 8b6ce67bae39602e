//! The doctor looks at what a service would run on, before it does or while it does, and says what to do about each finding.
//!
//! It sees as much as it can: a check that fails is a finding, and keeps no other from being made. It changes nothing, and
//! asks the gateway nothing that costs or moves anything.
//!
//! * `configuration`: settings that are good each, and not together. Asks nobody.
//! * `server`, `clock`, `capacity`: PostgreSQL as it is set up.
//! * `schema`, `privileges`: the tables, and what the role may do with them.
//! * `upkeep`: work that was left lying.
//! * `gateway`: whether it answers.

mod capacity;
mod clock;
mod configuration;
mod finding;
mod gateway;
mod privileges;
mod schema;
mod server;
mod store;
mod upkeep;

use sqlx::{Connection, PgConnection};

pub use self::finding::{Finding, Report, Verdict};
pub use self::privileges::NEEDED as NEEDED_PRIVILEGES;
use crate::config::ServeArgs;
use crate::database;

/// Checks all that a `payonce serve` with these settings would rest on.
pub async fn examine(args: &ServeArgs) -> Report {
    let mut findings = configuration::examine(args);
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
    examine_connected(&mut connection, args, &mut findings).await;
    // It has been looked at; how the connection ends makes no difference.
    drop(connection.close().await);
    findings
}

async fn examine_connected(
    connection: &mut PgConnection,
    args: &ServeArgs,
    findings: &mut Vec<Finding>,
) {
    findings.extend(server::examine(connection, args).await);
    findings.push(clock::examine(connection).await);
    findings.extend(capacity::examine(connection, args).await);
    findings.push(schema::examine(connection, args).await);
    findings.push(privileges::examine(connection, args).await);
    findings.extend(upkeep::examine(connection).await);
}
