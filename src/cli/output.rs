//! `task-server output`: fetches the output file of a task.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::ids::{TaskName, resolve_one};

const EXAMPLES: &str = "\
Examples:
  task-server output 0dbec33e > tokens.json
  task-server output 0dbec33e --to picture.png";

/// Writes the output file of a completed task to standard output
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct OutputArgs {
    /// Task id, or its last 8 digits
    #[arg(value_name = "ID")]
    id: TaskName,

    /// Write to this new file instead
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// Write to a terminal even if the output may be binary
    #[arg(long, conflicts_with = "to")]
    force: bool,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: OutputArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    if args.to.is_none() && io::stdout().is_terminal() && !args.force {
        let message = "refusing to write a file to the terminal: use --to FILE, redirect the output, \
                       or add --force";
        return Err(Failure::new(Exit::Usage, message));
    }
    let id = resolve_one(&client, args.id).await?;
    let response = client.send(Request::get(format!("/tasks/{id}/output"))).await?;
    // Created only now, so that an error response leaves no empty file.
    let mut out: Box<dyn Write> = match &args.to {
        None => Box::new(io::stdout().lock()),
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            Box::new(file.map_err(|error| {
                let message = format!("cannot create `{}`: {error}", path.display());
                Failure::new(Exit::CannotCreate, message)
            })?)
        }
    };
    let mut body = response.into_body();
    while let Some(part) = client.part(&mut body).await? {
        out.write_all(&part)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}
