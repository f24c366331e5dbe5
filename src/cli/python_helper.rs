//! `task-server python-helper`: prints the Python module that runs task classes.

use std::io::{self, Write};

use clap::Args;

use super::exit::{EXIT_CODES, Exit, Outcome};
use super::terminal::ignore_broken_pipe;
use crate::tasks::PYTHON_HELPER;

const EXAMPLES: &str = "\
Examples:
  task-server python-helper > tasks.d/base.py      # for editors and type checkers

The server has its own copy: this one is never run.";

/// Prints the Python module with `BaseTask`, for editors and type checkers
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct PythonHelperArgs {}

pub(super) fn run(_: PythonHelperArgs) -> Outcome {
    ignore_broken_pipe(io::stdout().write_all(PYTHON_HELPER.as_bytes()))?;
    Ok(Exit::Done)
}
