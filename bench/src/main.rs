//! payonce's benchmark: payonce compared with the alternatives of a developer, in one run, on one database with fsync on.
//!
//! The modules, in the order of a run: [`options`] (what is measured) → [`run`] (one scenario after the other) → `scenarios/*`,
//! each of which starts a [`server`] with [`bench`], sends it requests with [`load`], compares the answers with the database with
//! [`checks`], and collects [`report::Run`]s; [`report`] then writes the JSON file, `docs/BENCHMARKS.md` and the plot.
//!
//! All variants get the same bytes from the same generator, in turns, so that a slow minute of the machine affects all of them. A
//! run whose check fails ends the program with 1, and no table is written.

mod bench;
mod checks;
mod cluster;
mod database;
mod fill;
mod fsync;
mod keys;
mod load;
mod machine;
mod options;
mod pgbench;
mod process;
mod programs;
mod progress;
mod report;
mod requests;
mod revision;
mod rivals;
mod run;
mod scenarios;
mod server;
mod slow_disk;
mod store;
mod yardstick;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::options::Options;

/// Measures payonce and its alternatives.
#[derive(Debug, Parser)]
#[command(name = "payonce-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, and write the report
    Run(Box<Options>),
    /// Write the Markdown and the plot of a report again, from its JSON file
    Render {
        /// The JSON file of a run.
        json: PathBuf,
        /// Path of the Markdown file; the plot is written beside it.
        #[arg(long, value_name = "FILE", default_value = "docs/BENCHMARKS.md")]
        markdown: PathBuf,
        /// Path of the plot.
        #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.svg")]
        plot: PathBuf,
    },
    /// Serve the per-request handler that payonce is compared with (`run` starts it)
    #[command(hide = true)]
    Reference(rivals::ReferenceArgs),
    /// Serve the same in two phases (`run` starts it)
    #[command(hide = true)]
    TwoPhase(rivals::ReferenceArgs),
    /// Serve one answer for every POST (`run` starts it)
    #[command(hide = true)]
    Bare(rivals::BareArgs),
    /// Serve a handler wrapped in payonce's actix middleware, or the same one bare (`run` starts it)
    #[command(hide = true)]
    Layered(rivals::LayeredArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => run::run(*options),
        Command::Render {
            json,
            markdown,
            plot,
        } => report::render(&json, &markdown, &plot),
        Command::Reference(args) => rivals::serve_reference(args),
        Command::TwoPhase(args) => rivals::serve_two_phase(args),
        Command::Bare(args) => rivals::serve_bare(&args),
        Command::Layered(args) => rivals::serve_layered(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payonce-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
