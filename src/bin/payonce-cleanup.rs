//! The clean-up that cron runs; see [`payonce::cli::cleanup`].

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    payonce::cli::cleanup::run().await
}
