//! `task-server openapi`: prints the OpenAPI document.

use clap::Args;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Outcome};
use super::terminal::print_json;

const EXAMPLES: &str = "\
Examples:
  task-server openapi > openapi.json";

/// Prints the server's OpenAPI document
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct OpenapiArgs {
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: OpenapiArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    print_json(&client.json(Request::get("/openapi.json")).await?)?;
    Ok(Exit::Done)
}
