//! The service and its commands; see [`payonce::cli`].

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    payonce::cli::run().await
}
