//! `payonce completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::output::print_line;

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Prints a script by which a shell completes this program's commands and settings.
pub(super) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    let mut command = super::Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print_line(String::from_utf8(script)?.trim_end())
}
