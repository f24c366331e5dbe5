//! `task-server submit`: submits a task, and waits for it if asked to.

use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Client, Connection, Request};
use super::exit::{EXIT_CODES, Exit, Outcome};
use super::parameters::{TaskArgs, pair};
use super::paths::make_absolute;
use super::record::print_details;
use super::terminal::{escape, ignore_broken_pipe, print_json, print_line};
use super::types::TypeView;
use super::view::View;
use super::watch::watch_all;

const EXAMPLES: &str = "\
Examples:
  task-server submit dummy_short -p duration=3 -p steps=3
  task-server submit tokenize -p sleep_duration=0 --input README.md --output tokens.json --wait
  task-server submit image_process --parameters @size.json --input a.png --output a.webp -p format=WebP
  task-server submit tokenize --input a.txt --output a.json --dry-run
  task-server submit dummy_long --tag plate=7 --priority 5 --run-at 2026-12-24T18:00:00+01:00

Relative paths are resolved in the working directory if the server runs on this machine and may use
that folder, else in the server's first root; the absolute paths are printed.

Prints the id of the new task, or with --wait the whole task once it has ended. Ctrl-C stops waiting,
not the task.";

/// Submits a task
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct SubmitArgs {
    #[command(flatten)]
    task: TaskArgs,

    /// Tag to filter tasks by; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    tag: Vec<(String, String)>,

    /// Priority; higher runs first
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,

    /// Number of attempts before the task fails
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,

    /// Earliest start, such as 2026-01-31T15:30:00Z
    #[arg(long, value_name = "TIME")]
    run_at: Option<String>,

    /// Key that makes repeating the submission safe: for 24 hours it returns the same task
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,

    /// Check the submission, including file access, without storing it
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,

    /// Wait until the task has ended, and show its progress
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    connection: Connection,
}

#[derive(Deserialize)]
struct Submitted {
    task_id: String,
}

#[derive(Deserialize)]
struct DryRun {
    message: String,
    parameters: Value,
}

pub(super) async fn run(mut args: SubmitArgs) -> Outcome {
    let client = Client::new(&args.connection)?;
    make_absolute(&client, &mut args.task).await;
    let schema = match args.task.needs_schema() {
        true => TypeView::find(&client, &args.task.task_type).await?.map(|found| found.parameters),
        false => None,
    };
    let body = args.body(args.task.parameters(&schema.unwrap_or_default())?);
    let path = if args.dry_run { "/tasks?dry_run=true" } else { "/tasks" };
    // A conflict passes: another task is unfinished in exclusive mode, or writes the same output.
    let mut request = Request::new(Method::POST, path).json(&body).conflict(Exit::TryLater);
    if let Some(key) = &args.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let answer = client.json(request).await?;
    let as_json = args.connection.json;
    if args.dry_run {
        match as_json {
            true => print_json(&answer)?,
            false => {
                let DryRun { message, parameters } = client.parse(&answer)?;
                print_line(&escape(&message))?;
                print_json(&parameters.to_string())?;
            }
        }
        return Ok(Exit::Done);
    }
    let Submitted { task_id } = client.parse(&answer)?;
    if !args.wait {
        match as_json {
            true => print_json(&answer)?,
            false => print_line(&escape(&task_id))?,
        }
        return Ok(Exit::Done);
    }
    let watched = watch_all(&client, &args.connection, &[task_id], View::on_stderr(1)).await?;
    for record in &watched.records {
        ignore_broken_pipe(print_details(record, as_json))?;
    }
    Ok(watched.exit)
}

impl SubmitArgs {
    /// Builds the request body from the given fields only, which leaves defaults to the server.
    fn body(&self, parameters: Map<String, Value>) -> Value {
        let task = &self.task;
        let tags: Map<_, _> =
            self.tag.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut body = Map::new();
        body.insert("task_type".to_owned(), json!(task.task_type));
        body.insert("parameters".to_owned(), parameters.into());
        for (field, value) in [
            ("input_file_path", json!(task.input)),
            ("output_file_path", json!(task.output)),
            ("timeout_seconds", json!(task.timeout)),
            ("priority", json!(self.priority)),
            ("max_attempts", json!(self.max_attempts)),
            ("run_at", json!(self.run_at)),
            ("tags", if tags.is_empty() { Value::Null } else { tags.into() }),
        ] {
            if !value.is_null() {
                body.insert(field.to_owned(), value);
            }
        }
        body.into()
    }
}
