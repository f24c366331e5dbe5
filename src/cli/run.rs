//! `task-server run`: runs one task in this process, as the server would, and leaves nothing behind
//! but its output.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind};

use super::exit::{EXIT_CODES, Exit, Failure, Outcome, fault_line, listen_for};
use super::parameters::TaskArgs;
use super::record::{Record, print_details};
use super::serve::start_logging;
use super::settings::SettingsFile;
use super::terminal::even_unread;
use super::view::View;
use crate::config::{Config, LogFormat};
use crate::manager::{
    Interest, ManagerOptions, Submission, SubmitError, Subscription, TaskManager,
};
use crate::store::state_files;
use crate::task::{TaskId, with_causes};
use crate::tasks::TaskRegistry;

const EXAMPLES: &str = "\
Examples:
  task-server run dummy_short -p duration=3 -p steps=3
  task-server run tokenize -p sleep_duration=0 --input README.md --output tokens.json
  task-server run image_process --root /data --input /data/a.png --output a.webp -p format=WebP

No server is needed, and none is asked. Ctrl-C cancels the task, a second one ends at once. With
RUST_LOG=info the log of the task is shown.";

/// Runs one task right here, without a server, with the same checks; to try a task out
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct RunArgs {
    #[command(flatten)]
    task: TaskArgs,

    /// Folder that the task may read and write, beside the working directory; repeatable
    #[arg(long = "root", value_name = "DIR")]
    roots: Vec<PathBuf>,

    #[command(flatten)]
    settings: SettingsFile,

    /// Print the task as JSON when it has ended
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: RunArgs) -> Outcome {
    start_logging(LogFormat::Text, "error");
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let folder = TempDir::new().map_err(|error| {
        Failure::new(Exit::CannotCreate, format!("cannot make a temporary folder: {error}"))
    })?;
    let options = options(folder.path(), &args.roots, args.settings.load()?);
    let registry = TaskRegistry::builtin();
    let schema =
        registry.find(&args.task.task_type).map_or(Value::Null, |(_, task)| task.schema().clone());
    let submission = Submission {
        parameters: args.task.parameters(&schema)?,
        task_type: args.task.task_type,
        input_file_path: args.task.input,
        output_file_path: args.task.output,
        timeout_seconds: args.task.timeout.and_then(|seconds| seconds.as_f64()),
        ..Submission::default()
    };
    let manager = TaskManager::start(options, registry)
        .await
        .map_err(|error| Failure::new(Exit::Usage, with_causes(&error)))?;
    let id = manager.submit(submission).await.map_err(refused)?;
    let record = to_its_end(&manager, id, &mut interrupt).await?;
    manager.drain(Duration::ZERO).await;
    manager.close().await;
    even_unread(print_details(&record, args.json))?;
    Ok(record.exit().unwrap_or(Exit::Internal))
}

/// Those of a server with a database in `folder`.
fn options(folder: &Path, roots: &[PathBuf], config: Config) -> ManagerOptions {
    // A server with these settings does not let its tasks touch these either.
    let mut protected = state_files(&config.database);
    protected.extend(config.api_key_file.into_iter().chain([config.file]));
    ManagerOptions {
        database: folder.join("tasks.db"),
        roots: [PathBuf::from(".")].into_iter().chain(roots.iter().cloned()).collect(),
        state_files: protected,
        max_running: 1,
        max_pending: 1,
        // One, and the one that takes its place.
        max_streams: 2,
        cpu_slots: config.cpu_slots,
        exclusive: false,
        type_limits: Vec::new(),
        retention: None,
    }
}

async fn to_its_end(
    manager: &TaskManager,
    id: TaskId,
    interrupt: &mut Signal,
) -> Result<Record, Failure> {
    let mut events = watch(manager, id).await?;
    let mut view = View::for_people(1);
    let mut cancelled = false;
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else {
                    // Standard error took nothing for long, so that too much had piled up. How the
                    // task stands by now comes first.
                    events = watch(manager, id).await?;
                    continue;
                };
                let record = Record::parse(event.json())?;
                view.show(&record)?;
                if record.exit().is_some() {
                    return Ok(record);
                }
            }
            _ = interrupt.recv() => {
                if cancelled {
                    return Err(Failure::new(Exit::Interrupted, "ended before the task has stopped"));
                }
                cancelled = true;
                view.note("cancelling the task; Ctrl-C again ends at once");
                let manager = manager.clone();
                // It waits for the task to stop, and a second Ctrl-C must not wait for that.
                tokio::spawn(async move { manager.cancel(id).await });
            }
        }
    }
}

async fn watch(manager: &TaskManager, id: TaskId) -> Result<Subscription, Failure> {
    let events = manager.watch(Interest::Task(id), None).await;
    events.map_err(|error| Failure::new(Exit::Internal, with_causes(&error)))
}

fn refused(error: SubmitError) -> Failure {
    match error {
        SubmitError::Invalid(faults) => {
            let lines: Vec<_> =
                faults.iter().map(|fault| fault_line(&fault.loc, &fault.msg)).collect();
            Failure::new(Exit::Usage, lines.join("\n"))
        }
        other => Failure::new(Exit::Internal, with_causes(&other)),
    }
}
