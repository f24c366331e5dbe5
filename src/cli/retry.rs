//! `task-server retry`: submits finished tasks again.

use clap::Args;
use hyper::Method;

use super::client::{Client, Connection, Request};
use super::each::{Answer, for_each};
use super::exit::{EXIT_CODES, Outcome};
use crate::task::TaskId;

const EXAMPLES: &str = "\
Examples:
  task-server retry 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server list --status failed --all --json | jq -r '.[].task_id' | xargs task-server retry

Prints the ids of the new tasks.";

/// Submits finished tasks again, with the same type, parameters, paths, priority, tags and limits
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct RetryArgs {
    /// Finished tasks
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: RetryArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let request = |id| Request::new(Method::POST, format!("/tasks/{id}/retry"));
    let line = |answer: &Answer| answer.task_id.clone();
    for_each(&client, &args.ids, args.connection.json, request, line).await
}
