//! `task-server cancel`: cancels tasks, named or all that match.

use clap::Args;
use hyper::Method;
use serde::Deserialize;

use super::client::{Client, Connection, Request};
use super::each::{Answer, for_each};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::filters::Filters;
use super::ids::{TaskName, resolve};
use super::terminal::{print_json, print_line};

const EXAMPLES: &str = "\
Examples:
  task-server cancel 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server cancel --status pending
  task-server cancel --type tokenize --tag plate=7

A running task is asked to stop, and is shown as running until it has.";

/// Cancels tasks: those that are named, or all unfinished ones that match the filters
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct CancelArgs {
    /// Tasks to cancel
    #[arg(value_name = "ID", conflicts_with = "Filters")]
    ids: Vec<TaskName>,

    #[command(flatten)]
    filters: Filters,

    #[command(flatten)]
    connection: Connection,
}

/// What a cancellation of many met.
#[derive(Deserialize)]
struct Counts {
    matched: u64,
    cancelled: u64,
    requested: u64,
}

pub(super) async fn run(args: CancelArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    if !args.ids.is_empty() {
        let request = |id| Request::new(Method::DELETE, format!("/tasks/{id}"));
        let line = |answer: &Answer| format!("{} {}", answer.task_id, answer.message);
        let ids = resolve(&client, &args.ids).await?;
        return for_each(&client, &ids, args.connection.json, request, line).await;
    }
    if args.filters.is_empty() {
        let message = "name tasks by their ids, or with --status, --type or --tag";
        return Err(Failure::new(Exit::Usage, message));
    }
    let path = format!("/tasks/cancel?{}", args.filters.query(None));
    let json = client.json(Request::new(Method::POST, path)).await?;
    if args.connection.json {
        print_json(&json)?;
    } else {
        let Counts { matched, cancelled, requested } = client.parse(&json)?;
        print_line(&format!(
            "{matched} matched, {cancelled} cancelled, {requested} asked to stop"
        ))?;
    }
    Ok(Exit::Done)
}
