//! payonce's benchmark: payonce beside what a developer could pick instead, in one run, on one database with fsync on.
//!
//! The way through it: [`options`] (what is measured) → [`run`] (one scenario after the other) → `scenarios/*`, which
//! start a [`server`] each by [`bench`], drive it by [`load`], count by [`checks`] what the database kept, and put
//! [`report::Run`]s together; [`report`] then writes the JSON file, `docs/BENCHMARKS.md` and the plot.
//!
//! Everything that is compared is driven by the same generator with the same bytes, in turns, so that a slow minute of the
//! machine hits all of them. A run whose check fails ends the program with 1, and no table is written.

mod bench;
mod checks;
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
mod rivals;
mod run;
mod scenarios;
mod server;
mod store;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::options::Options;

/// Measures payonce beside what could be picked instead.
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
    /// Write the Markdown and the plot of a report anew, from its JSON file
    Render {
        /// The JSON file of a run.
        json: PathBuf,
        /// Where the Markdown goes; its plot goes beside it.
        #[arg(long, value_name = "FILE", default_value = "docs/BENCHMARKS.md")]
        markdown: PathBuf,
        /// Where the plot goes.
        #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.svg")]
        plot: PathBuf,
    },
    /// Serve the per-request handler that payonce is compared with (`run` starts it)
    #[command(hide = true)]
    Reference(rivals::ReferenceArgs),
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
