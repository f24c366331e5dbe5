//! `task-server list`: lists tasks, newest first.

use clap::{Args, ValueEnum};
use serde_json::value::RawValue;

use super::client::{Client, Connection};
use super::columns::Columns;
use super::exit::{EXIT_CODES, Exit, Failure, Outcome};
use super::filters::Filters;
use super::record::Record;
use super::terminal::{print_json, print_line, report};
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

    /// Maximum number of tasks [default: 100]
    #[arg(long, value_name = "N", conflicts_with = "all")]
    limit: Option<usize>,

    /// List all tasks, without a limit
    #[arg(long)]
    all: bool,

    /// Only tasks with a retry, or only those without
    #[arg(long, value_name = "BOOL")]
    retried: Option<bool>,

    /// Comma-separated columns: id, status, type, progress, age, created, input, output, any other field, or a
    /// part such as result.token_count or tags.plate [default: id,status,type,progress,age,input,message]
    #[arg(long, value_name = "NAMES")]
    columns: Option<Columns>,

    /// Output format; CSV has full ids and untruncated values
    #[arg(long, value_enum, default_value = "table", conflicts_with = "json")]
    format: Format,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

pub(super) async fn run(args: ListArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    let format = if args.connection.json { Format::Json } else { args.format };
    let wanted = if args.all { usize::MAX } else { args.limit.unwrap_or(DEFAULT_LIMIT) };
    let mut query = args.filters.query(Some(wanted.min(MAX_LIMIT)));
    if let Some(retried) = args.retried {
        query.push_str(&format!("&retried={retried}"));
    }
    let mut printer = Printer { format, columns: args.columns.unwrap_or_default(), printed: 0 };
    loop {
        let (page, next) = client.page(&query).await?;
        let mut tasks: Vec<&RawValue> = client.parse(&page)?;
        let left = wanted - printer.printed;
        let more = tasks.len() > left || (tasks.len() == left && next.is_some());
        tasks.truncate(left);
        printer.print(&tasks)?;
        match next {
            // A page may be short or even empty and still have a successor.
            Some(next) if printer.printed < wanted => query = next,
            _ => {
                printer.end()?;
                if more && format != Format::Json {
                    report("there are more tasks: list them with --all");
                }
                return Ok(Exit::Done);
            }
        }
    }
}

/// Prints page by page, so that memory stays bounded.
struct Printer {
    format: Format,
    columns: Columns,
    printed: usize,
}

impl Printer {
    fn print(&mut self, tasks: &[&RawValue]) -> Result<(), Failure> {
        let with_header = self.printed == 0;
        if self.format == Format::Json {
            for (index, task) in tasks.iter().enumerate() {
                let separator = if with_header && index == 0 { '[' } else { ',' };
                print_json(&format!("{separator}{}", task.get()))?;
            }
        } else {
            let records = tasks.iter().map(|task| Record::parse(task.get()));
            let records: Vec<_> = records.collect::<Result<_, _>>()?;
            match self.format {
                Format::Csv => self.columns.print_csv(&records, with_header)?,
                Format::Table | Format::Json => self.columns.print_table(&records, with_header)?,
            }
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
