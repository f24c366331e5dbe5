//! `task-server cancel`: cancels tasks by id or by filters.

use clap::Args;
use hyper::Method;
use serde::Deserialize;

use super::client::{Connection, Request};
use super::exit::{EXIT_CODES, Outcome};
use super::selection::{Answer, Selection};

const EXAMPLES: &str = "\
Examples:
  task-server cancel 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server cancel --status pending
  task-server cancel --type tokenize --tag plate=7

A running task is asked to stop and stays running until it does.";

/// Cancels the given tasks, or all unfinished tasks that match the filters
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct CancelArgs {
    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    connection: Connection,
}

/// Result of a bulk cancellation.
#[derive(Deserialize)]
struct Counts {
    matched: u64,
    cancelled: u64,
    requested: u64,
}

pub(super) async fn run(args: CancelArgs) -> Outcome {
    let one = |id| Request::new(Method::DELETE, format!("/tasks/{id}"));
    let line = |answer: Answer| format!("{} {}", answer.task_id, answer.message);
    let summary = |Counts { matched, cancelled, requested }| {
        format!("{matched} matched, {cancelled} cancelled, {requested} asked to stop")
    };
    args.selection.apply(&args.connection, one, line, "/tasks/cancel", summary).await
}
