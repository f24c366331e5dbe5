//! `task-server list`: tasks, newest first.

use clap::{Args, ValueEnum};
use hyper::Response;
use hyper::body::Incoming;
use serde_json::value::RawValue;

use super::client::{Client, Connection, Request};
use super::columns::Columns;
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::filters::Filters;
use super::record::Record;
use super::terminal::{print_json, print_line, say};
use crate::http::{DEFAULT_LIMIT, MAX_LIMIT};

const EXAMPLES: &str = "\
Examples:
  task-server list
  task-server list --status pending,running --type tokenize
  task-server list --tag plate=7 --limit 10
  task-server list --status failed --all --columns id,input,error
  task-server list --type tokenize --all --format csv --columns input,result.token_count > tokens.csv";

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

    /// Only tasks that were submitted again, or that were not
    #[arg(long, value_name = "BOOL")]
    retried: Option<bool>,

    /// Columns, with commas: id, status, type, progress, age, created, input, output, any other field, or a
    /// part such as result.token_count or tags.plate [default: id,status,type,progress,age,input,message]
    #[arg(long, value_name = "NAMES")]
    columns: Option<Columns>,

    /// How to print them; CSV has whole values and full ids
    #[arg(long, value_enum, default_value = "table", conflicts_with = "json")]
    format: Format,

    #[command(flatten)]
    connection: Connection,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

pub(super) async fn run(args: ListArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let format = if args.connection.json { Format::Json } else { args.format };
    let columns = args.columns.unwrap_or_default();
    let wanted = if args.all { usize::MAX } else { args.limit.unwrap_or(DEFAULT_LIMIT) };
    let mut query = args.filters.query(Some(wanted.min(MAX_LIMIT)));
    if let Some(retried) = args.retried {
        query.push_str(&format!("&retried={retried}"));
    }
    let mut pages = Pages { format, columns, printed: 0 };
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
                if more && format != Format::Json {
                    say("there are more: --all lists them");
                }
                return Ok(Exit::Done);
            }
        }
    }
}

/// Prints page after page, so that none has to stay in memory.
struct Pages {
    format: Format,
    columns: Columns,
    printed: usize,
}

impl Pages {
    fn print(&mut self, tasks: Vec<&RawValue>) -> Result<(), Failure> {
        if self.format == Format::Json {
            for task in tasks {
                let separator = if self.printed == 0 { '[' } else { ',' };
                print_json(&format!("{separator}{}", task.get()))?;
                self.printed += 1;
            }
            return Ok(());
        }
        let records = tasks.iter().map(|task| Record::parse(task.get()));
        let records: Vec<_> = records.collect::<Result<_, _>>()?;
        let with_header = self.printed == 0;
        match self.format {
            Format::Csv => self.columns.print_csv(&records, with_header)?,
            Format::Table | Format::Json => self.columns.print_table(&records, with_header)?,
        }
        self.printed += tasks.len();
        Ok(())
    }

    fn end(&self) -> Result<(), Failure> {
        match (self.format, self.printed) {
            (Format::Json, 0) => Ok(print_line("[]")?),
            (Format::Json, _) => Ok(print_line("]")?),
            (Format::Table | Format::Csv, _) => Ok(()),
        }
    }
}

/// The query of the next page (RFC 8288); the path before it is the server's, not its proxy's.
pub(super) fn next_query(response: &Response<Incoming>) -> Option<String> {
    let link = response.headers().get("link")?.to_str().ok()?;
    let (target, _) = link.split_once(">; rel=\"next\"")?;
    target.rsplit_once('?').map(|(_, query)| query.to_owned())
}
