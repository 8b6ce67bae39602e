//! `payonce recover`.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::output::print_json;
use crate::config::{ConfigError, DatabaseArgs, GatewayArgs, IdempotencyArgs, LogArgs};
use crate::idempotency::Engine;
use crate::payments::Payments;
use crate::recovery::{Recovery, RecoveryReport};
use crate::startup;

/// One for each key that a pass works on at once, and one to read with.
const MAX_CONNECTIONS: u32 = 9;

/// How long passes are repeated although they resolve nothing: longer than a short outage of a gateway.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two passes if work is left.
const PAUSE: Duration = Duration::from_secs(1);

/// The settings of a service that recovery needs. It calls the gateway.
#[derive(Debug, clap::Args)]
pub(super) struct RecoverArgs {
    /// Make one pass only. Without it, passes are repeated until nothing is left, or nothing was resolved for a minute.
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    idempotency: IdempotencyArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Prints a JSON report of each pass. Returns an error if claims are left.
pub(super) async fn run(args: &RecoverArgs) -> anyhow::Result<()> {
    args.log.init(None);
    let gateway_timeout = args.gateway.gateway_timeout;
    let gateways = startup::gateways(
        &args.gateway.settings().map_err(ConfigError::from)?,
        gateway_timeout,
    )?;
    let pool = super::open_with(&args.database, MAX_CONNECTIONS).await?;
    let secrets = args.idempotency.fingerprint_secrets();
    let secrets = secrets.map_err(ConfigError::from)?;
    let config = args
        .idempotency
        .config()
        .with_durability(args.database.settings(MAX_CONNECTIONS).durability());
    let engine = Engine::start(pool, config, &secrets).await?;
    let mut recovery = Recovery::new(Payments::new(engine, gateways, gateway_timeout));
    let mut progressed = Instant::now();
    loop {
        let report = recovery.run_once().await?;
        print_json(&report)?;
        if args.once || is_done(&report) {
            return Ok(());
        }
        if report.resolved > 0 {
            progressed = Instant::now();
        }
        if cannot_go_on(&report) || progressed.elapsed() > PATIENCE {
            bail!("{}", left_over(&report));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_done(report: &RecoveryReport) -> bool {
    report.found == report.resolved + report.taken_by_others
}

/// Returns true if all remaining claims need an operator.
fn cannot_go_on(report: &RecoveryReport) -> bool {
    report.misconfigured > 0
        && report.found == report.resolved + report.taken_by_others + report.misconfigured
}

fn left_over(report: &RecoveryReport) -> String {
    let left = report.found - report.resolved - report.taken_by_others;
    let mut text =
        format!("{left} claims are left; payonce idempotency-keys list --stuck shows them");
    if report.misconfigured > 0 {
        text += "; some are of a gateway that is not set up here or that refuses this service: \
                 set PAYONCE_GATEWAY and its settings as the service has them";
    }
    text
}
