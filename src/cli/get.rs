//! `task-server get`: one task.

use clap::Args;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Outcome};
use super::record::{Record, print_details};
use crate::task::TaskId;

const EXAMPLES: &str = "\
Examples:
  task-server get 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server get ID --json | jq .result";

/// Shows one task
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct GetArgs {
    /// The task
    #[arg(value_name = "ID")]
    id: TaskId,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: GetArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let json = client.json(Request::get(format!("/tasks/{}", args.id))).await?;
    print_details(&Record::parse(&json)?, args.connection.json)?;
    Ok(Exit::Done)
}
