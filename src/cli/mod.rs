//! The programs: their commands, output and exit status.
//!
//! Exit status: 0 for success; 2 for bad usage or bad configuration, with one line that names the setting; 1 for anything else, with
//! one line that has the chain of causes. Results go to standard output, everything else to standard error.

mod api_keys;
pub mod cleanup;
mod completions;
mod doctor;
mod examples;
mod exit;
mod idempotency_keys;
mod merchants;
mod merchants_move;
mod migrate;
mod output;
mod ready;
mod recover;
mod secret_files;
mod serve;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sqlx::PgPool;

use crate::config::{DatabaseArgs, ServeArgs};
use crate::{database, demo};

/// A command needs one connection, and has one to spare.
const MAX_CONNECTIONS: u32 = 2;

/// A payments service whose clients may repeat any request, and are charged once.
#[derive(Debug, Parser)]
#[command(name = "payonce", version, after_help = examples::PAYONCE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the HTTP service; applies pending migrations first
    #[command(after_help = examples::SERVE)]
    Serve(Box<ServeArgs>),
    /// Apply pending migrations
    #[command(after_help = examples::MIGRATE)]
    Migrate(DatabaseArgs),
    /// Create, change and list merchants, and move them between cells
    #[command(subcommand)]
    Merchants(merchants::Command),
    /// Create, list and revoke the API keys of merchants
    #[command(subcommand)]
    ApiKeys(api_keys::Command),
    /// Show and list the records of idempotency keys
    #[command(subcommand)]
    IdempotencyKeys(idempotency_keys::Command),
    /// Run recovery now: finish the work that dead processes left behind
    #[command(after_help = examples::RECOVER)]
    Recover(Box<recover::RecoverArgs>),
    /// Check the database, the gateway and the settings, and say what to do about each finding
    #[command(after_help = examples::DOCTOR)]
    Doctor(Box<doctor::DoctorArgs>),
    /// Ask the service on this machine whether it is ready; for health checks
    #[command(after_help = examples::READY)]
    Ready(ready::ReadyArgs),
    /// Run the eight demonstrations against a real server and a real database
    #[command(after_help = examples::DEMO)]
    Demo(DatabaseArgs),
    /// Print a completion script for a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(completions::CompletionsArgs),
}

/// Runs `payonce` with the process's arguments.
pub async fn run() -> ExitCode {
    match usage::parse::<Cli>() {
        Ok(cli) => exit::conclude("payonce", cli.command.run().await),
        Err(status) => status,
    }
}

impl Command {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(args) => serve::run(&args).await?,
            Self::Migrate(args) => migrate::run(&args).await?,
            Self::Merchants(command) => command.run().await?,
            Self::ApiKeys(command) => command.run().await?,
            Self::IdempotencyKeys(command) => command.run().await?,
            Self::Recover(args) => recover::run(&args).await?,
            Self::Ready(args) => ready::run(&args).await?,
            Self::Completions(args) => completions::run(&args)?,
            Self::Doctor(args) => return doctor::run(&args).await,
            Self::Demo(args) => {
                let all_hold = demo::run(args).await?;
                // It has printed itself which checks failed.
                return Ok(if all_hold {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Opens a database for a command that works on the schema.
async fn open(args: &DatabaseArgs) -> anyhow::Result<PgPool> {
    open_with(args, MAX_CONNECTIONS).await
}

/// The same, for a command that needs more connections.
async fn open_with(args: &DatabaseArgs, max_connections: u32) -> anyhow::Result<PgPool> {
    let pool = database::connect(&args.settings(max_connections)).await?;
    database::check_durability(&pool, args.allow_unsafe_database).await?;
    database::schema_is_current(&pool).await?;
    Ok(pool)
}
