//! `task-server retry`: resubmits finished tasks by id or by filters.

use clap::Args;
use hyper::Method;
use serde::Deserialize;

use super::client::{Connection, Request};
use super::exit::{EXIT_CODES, Outcome};
use super::selection::{Answer, Selection};

const EXAMPLES: &str = "\
Examples:
  task-server retry 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server retry --status failed --tag plate=7

Given ids, prints the ids of the new tasks. Filters skip tasks that already have a retry, so repeating the
command submits only what has failed since. --status defaults to failed.";

/// Resubmits the given finished tasks, or all that match the filters and have no retry yet
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct RetryArgs {
    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    connection: Connection,
}

/// Result of a bulk retry.
#[derive(Deserialize)]
struct Counts {
    matched: u64,
    submitted: u64,
    conflicts: u64,
}

pub(super) async fn run(args: RetryArgs) -> Outcome {
    let one = |id| Request::new(Method::POST, format!("/tasks/{id}/retry"));
    let line = |answer: Answer| answer.task_id;
    let summary = |Counts { matched, submitted, conflicts }| {
        let conflicts = match conflicts {
            0 => String::new(),
            count => format!(
                ", {count} not: another task writes the same output, or the submission is no longer \
                 valid; `task-server retry ID` gives the reason"
            ),
        };
        format!("{matched} matched, {submitted} submitted again{conflicts}")
    };
    args.selection.apply(&args.connection, one, line, "/tasks/retry", summary).await
}
