//! `task-server completions`: prints a shell's completion script.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit::{Exit, Outcome};

const EXAMPLES: &str = "\
Examples:
  source <(task-server completions bash)                                       # for this shell
  task-server completions bash > ~/.local/share/bash-completion/completions/task-server
  task-server completions zsh > ~/.zfunc/_task-server
  task-server completions fish > ~/.config/fish/completions/task-server.fish";

/// Prints a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Outcome {
    clap_complete::generate(args.shell, &mut Cli::command(), "task-server", &mut io::stdout());
    Ok(Exit::Done)
}
