//! `task-server list`: tasks, newest first.

use clap::Args;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::value::RawValue;

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::filters::Filters;
use super::record::{Record, print_records};
use super::terminal::{print_json, print_line, say};
use crate::http::{DEFAULT_LIMIT, MAX_LIMIT};

const EXAMPLES: &str = "\
Examples:
  task-server list
  task-server list --status pending,running --type tokenize
  task-server list --tag plate=7 --limit 10
  task-server list --status failed --all --json | jq -r '.[].error'";

/// Lists tasks, newest first
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct ListArgs {
    #[command(flatten)]
    filters: Filters,

    /// Most tasks to list [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "all")]
    limit: Option<usize>,

    /// All of them, however many there are
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: ListArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let wanted = if args.all { usize::MAX } else { args.limit.unwrap_or(DEFAULT_LIMIT) };
    let mut query = args.filters.query(Some(wanted.min(MAX_LIMIT)));
    let mut pages = Pages { as_json: args.connection.json, printed: 0 };
    loop {
        let response = client.send(Request::get(format!("/tasks?{query}"))).await?;
        let next = next_query(&response);
        let text = client.text(response).await?;
        let mut tasks: Vec<&RawValue> = client.parse(&text)?;
        let left = wanted - pages.printed;
        let more = tasks.len() > left || (tasks.len() == left && next.is_some());
        tasks.truncate(left);
        pages.print(tasks)?;
        match next {
            // A page may be short, even empty, and still have a next one.
            Some(next) if pages.printed < wanted => query = next,
            _ => {
                pages.end()?;
                if more && !args.connection.json {
                    say("there are more: --all lists them");
                }
                return Ok(Exit::Done);
            }
        }
    }
}

/// Prints page after page, so that none has to stay in memory.
struct Pages {
    as_json: bool,
    printed: usize,
}

impl Pages {
    fn print(&mut self, tasks: Vec<&RawValue>) -> Result<(), Failure> {
        if self.as_json {
            for task in tasks {
                let separator = if self.printed == 0 { '[' } else { ',' };
                print_json(&format!("{separator}{}", task.get()))?;
                self.printed += 1;
            }
            return Ok(());
        }
        let records: Result<Vec<_>, _> =
            tasks.iter().map(|task| Record::parse(task.get())).collect();
        print_records(&records?, self.printed == 0)?;
        self.printed += tasks.len();
        Ok(())
    }

    fn end(&self) -> Result<(), Failure> {
        match (self.as_json, self.printed) {
            (true, 0) => Ok(print_line("[]")?),
            (true, _) => Ok(print_line("]")?),
            (false, _) => Ok(()),
        }
    }
}

/// The query of the next page (RFC 8288); the path before it is the server's, not its proxy's.
fn next_query(response: &Response<Incoming>) -> Option<String> {
    let link = response.headers().get("link")?.to_str().ok()?;
    let (target, _) = link.split_once(">; rel=\"next\"")?;
    target.rsplit_once('?').map(|(_, query)| query.to_owned())
}
