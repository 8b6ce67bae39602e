//! `payonce serve`.

use crate::config::ServeArgs;
use crate::merchants::Cell;
use crate::startup::Application;
use crate::telemetry::Traces;

/// Serves until the process is told to stop.
pub(super) async fn run(args: &ServeArgs) -> anyhow::Result<()> {
    // Dropped last, which sends the remaining spans.
    let traces = Traces::from_env()?;
    args.log.init(traces.as_ref());
    let settings = args.settings()?;
    let cell = settings.cell.map(Cell::number);
    let application = Application::build(settings).await?;
    if let Some(secret) = &args.idempotency.fingerprint_secret {
        secret.warn_if_short();
    }
    tracing::info!(address = %application.address(), cell, "listening");
    Ok(application.run_until_stopped().await?)
}
