//! `payonce doctor`.

use std::process::ExitCode;

use super::output::{print_json, print_line, print_table};
use crate::config::ServeArgs;
use crate::doctor::{self, Report};

/// The settings of the service to check.
#[derive(Debug, clap::Args)]
// A missing secret is one of the findings, so the other checks still run.
#[command(mut_arg("fingerprint_secret", |arg| arg.required(false)))]
pub(super) struct DoctorArgs {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    serve: ServeArgs,
}

/// Prints the findings. The exit status is 1 if one of them is a problem.
pub(super) async fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    args.serve.log.init(None);
    let report = doctor::examine(&args.serve).await;
    if args.json {
        print_json(&report)?;
    } else {
        print_findings(&report)?;
    }
    Ok(if report.is_healthy() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print_findings(report: &Report) -> anyhow::Result<()> {
    let rows = report.findings().iter().flat_map(|finding| {
        let row = [
            finding.verdict.as_str().to_owned(),
            finding.name.to_owned(),
            finding.found.clone(),
        ];
        let advice = finding.advice.as_ref();
        let advice = advice.map(|advice| [String::new(), String::new(), format!("→ {advice}")]);
        std::iter::once(row).chain(advice)
    });
    print_table(["RESULT", "CHECK", "FOUND"], rows)?;
    let [ok, warnings, problems] = report.counts();
    print_line(&format!(
        "problems: {problems}, warnings: {warnings}, ok: {ok}"
    ))
}
