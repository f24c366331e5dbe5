//! `task-server retry`: submits finished tasks again, named or all that match.

use clap::Args;
use hyper::Method;
use serde::Deserialize;

use super::client::{Client, Connection, Request};
use super::each::{Answer, for_each};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::filters::Filters;
use super::ids::{TaskName, resolve};
use super::terminal::{print_json, print_line};
use crate::task::TaskId;

const EXAMPLES: &str = "\
Examples:
  task-server retry 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server retry --status failed --tag plate=7

With ids prints those of the new tasks. Filters leave out what has a retry already, so the second time only
what failed since is submitted; without --status the failed ones are meant.";

/// Submits finished tasks again: those that are named, or all that match and have no retry yet
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct RetryArgs {
    /// Finished tasks
    #[arg(value_name = "ID", conflicts_with = "Filters")]
    ids: Vec<TaskName>,

    #[command(flatten)]
    filters: Filters,

    #[command(flatten)]
    connection: Connection,
}

/// Response to a bulk retry.
#[derive(Deserialize)]
struct Counts {
    matched: u64,
    submitted: u64,
    conflicts: u64,
}

pub(super) async fn run(args: RetryArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    if !args.ids.is_empty() {
        let request = |id: TaskId| Request::new(Method::POST, format!("/tasks/{id}/retry"));
        let line = |answer: &Answer| answer.task_id.clone();
        let ids = resolve(&client, &args.ids).await?;
        return for_each(&client, &ids, args.connection.json, request, line).await;
    }
    if args.filters.is_empty() {
        let message = "name tasks by their ids, or with --status, --type or --tag";
        return Err(Failure::new(Exit::Usage, message));
    }
    let path = format!("/tasks/retry?{}", args.filters.query(None));
    let json = client.json(Request::new(Method::POST, path)).await?;
    if args.connection.json {
        print_json(&json)?;
    } else {
        let Counts { matched, submitted, conflicts } = client.parse(&json)?;
        let conflicts = match conflicts {
            0 => String::new(),
            count => format!(
                ", {count} not: another task writes the same output, or the submission is not valid any more; \
                 `task-server retry ID` says which"
            ),
        };
        print_line(&format!("{matched} matched, {submitted} submitted again{conflicts}"))?;
    }
    Ok(Exit::Done)
}
