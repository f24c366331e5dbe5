//! `task-server get`: shows one task.

use clap::Args;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Outcome};
use super::ids::{TaskName, resolve_one};
use super::record::{Record, print_details};

const EXAMPLES: &str = "\
Examples:
  task-server get 01a20732-f5d8-72b0-90ab-6e8c0dbec33e
  task-server get ID --json | jq .result";

/// Shows a task
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct GetArgs {
    /// Task id, or its last 8 digits
    #[arg(value_name = "ID")]
    id: TaskName,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: GetArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let id = resolve_one(&client, args.id).await?;
    let json = client.json(Request::get(format!("/tasks/{id}"))).await?;
    print_details(&Record::parse(&json)?, args.connection.json)?;
    Ok(Exit::Done)
}
