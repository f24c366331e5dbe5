//! `task-server output`: the file that a task has written.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::ids::{TaskName, resolve};

const EXAMPLES: &str = "\
Examples:
  task-server output 0dbec33e > tokens.json
  task-server output 0dbec33e --to picture.png";

/// Writes the output file of a completed task to standard output
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct OutputArgs {
    /// The task
    #[arg(value_name = "ID")]
    id: TaskName,

    /// File to write instead, which must not exist yet
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// Write to the terminal even what may not be text
    #[arg(long, conflicts_with = "to")]
    force: bool,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: OutputArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    if args.to.is_none() && io::stdout().is_terminal() && !args.force {
        let message = "this would write a file to the terminal: name a file with --to, or redirect it; \
                       --force writes it all the same";
        return Err(Failure::new(Exit::Usage, message));
    }
    let ids = resolve(&client, std::slice::from_ref(&args.id)).await?;
    let response = client.send(Request::get(format!("/tasks/{}/output", ids[0]))).await?;
    // Opened only now, so that a task without output leaves no empty file.
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
