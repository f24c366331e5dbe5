//! `task-server output`: fetches the output of a task.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::ids::{TaskName, resolve_one};

const EXAMPLES: &str = "\
Examples:
  task-server output 0dbec33e > tokens.json
  task-server output 0dbec33e --to picture.png
  task-server output 0dbec33e masks/cell-7.png --to cell-7.png

An output that is a folder is listed as JSON; name one of its files to fetch that.";

/// All but what stays as it is in the path of a URL.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'_').remove(b'-');

/// Writes the output of a completed task to standard output
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct OutputArgs {
    /// Task id, or its last 8 digits
    #[arg(value_name = "ID")]
    id: TaskName,

    /// File in an output that is a folder
    #[arg(value_name = "PATH")]
    path: Option<String>,

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
    let inner = args.path.map(|path| format!("/{}", utf8_percent_encode(&path, ESCAPED)));
    let path = format!("/tasks/{id}/output{}", inner.unwrap_or_default());
    let response = client.send(Request::get(path)).await?;
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
