//! `payonce serve`.

use crate::config::ServeArgs;
use crate::startup::Application;

/// Serves until the process is told to stop.
pub(super) async fn run(args: &ServeArgs) -> anyhow::Result<()> {
    args.log.init();
    let settings = args.settings()?;
    let application = Application::build(settings).await?;
    args.idempotency.fingerprint_secret.warn_if_short();
    tracing::info!(address = %application.address(), "listening");
    Ok(application.run_until_stopped().await?)
}
