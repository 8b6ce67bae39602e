//! The service and its commands; see [`payonce::cli`].

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    payonce::cli::run().await
}
