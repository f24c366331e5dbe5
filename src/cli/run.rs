//! `task-server run`: runs one task in this process as the server would, leaving nothing but its output.

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
use super::terminal::ignore_broken_pipe;
use super::view::View;
use crate::app::tasks_folder;
use crate::config::{Config, LogFormat};
use crate::manager::{
    Interest, LogLimits, ManagerOptions, Submission, SubmitError, Subscription, TaskManager,
};
use crate::store::state_files;
use crate::task::{TaskId, with_causes};
use crate::tasks::{FolderOptions, TaskRegistry, TasksFolder};

const EXAMPLES: &str = "\
Examples:
  task-server run dummy_short -p duration=3 -p steps=3
  task-server run tokenize -p sleep_duration=0 --input README.md --output tokens.json
  task-server run image_process --root /data --input /data/a.png --output a.webp -p format=WebP

No server is involved. Ctrl-C cancels the task, a second one exits at once. RUST_LOG=info shows the
log of the task.";

/// Runs a task in this process, without a server but with the same checks, to try it out
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct RunArgs {
    #[command(flatten)]
    task: TaskArgs,

    /// Folder that the task may use besides the working directory; repeatable
    #[arg(long = "root", value_name = "DIR")]
    roots: Vec<PathBuf>,

    #[command(flatten)]
    settings: SettingsFile,

    /// Print the final task as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: RunArgs) -> Outcome {
    start_logging(LogFormat::Text, "error");
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let folder = TempDir::new().map_err(|error| {
        Failure::new(Exit::CannotCreate, format!("cannot create a temporary folder: {error}"))
    })?;
    let config = args.settings.load()?;
    let declared = FolderOptions { state: folder.path().join("tasks"), ..tasks_folder(&config) };
    let options = options(folder.path(), &args.roots, config, &declared.folder);
    let registry = TaskRegistry::builtin();
    registry.set_declared(TasksFolder::open(declared).await.types());
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
    let id = manager.submit(submission).await.map_err(rejected)?;
    let record = follow(&manager, id, &mut interrupt).await?;
    manager.drain(Duration::ZERO).await;
    manager.close().await;
    ignore_broken_pipe(print_details(&record, args.json))?;
    Ok(record.task.exit().unwrap_or(Exit::Internal))
}

/// Returns the options of a manager with its database in `folder`.
fn options(folder: &Path, roots: &[PathBuf], config: Config, tasks: &Path) -> ManagerOptions {
    // Protects the files of a server with these settings, as that server would.
    let mut protected = state_files(&config.database);
    protected.extend(config.api_key_file.into_iter().chain([config.file, tasks.to_owned()]));
    ManagerOptions {
        database: folder.join("tasks.db"),
        roots: [PathBuf::from(".")].into_iter().chain(roots.iter().cloned()).collect(),
        state_files: protected,
        max_running: 1,
        max_pending: 1,
        // Two, since `follow` may subscribe again before the old subscription is gone.
        max_streams: 2,
        cpu_slots: config.cpu_slots,
        exclusive: false,
        type_limits: Vec::new(),
        retention: None,
        logs: LogLimits { retention: config.log_retention, space: config.log_space },
    }
}

/// Shows the task until it has ended, and returns its final record.
async fn follow(
    manager: &TaskManager,
    id: TaskId,
    interrupt: &mut Signal,
) -> Result<Record, Failure> {
    let mut events = subscribe(manager, id).await?;
    let mut view = View::on_stderr(1);
    let mut cancelled = false;
    loop {
        tokio::select! {
            event = events.next() => {
                let Some(event) = event else {
                    // Dropped because standard error blocked for too long. A new subscription
                    // starts with the current state.
                    events = subscribe(manager, id).await?;
                    continue;
                };
                let record = Record::parse(event.json())?;
                view.show(&record)?;
                if record.task.exit().is_some() {
                    return Ok(record);
                }
            }
            _ = interrupt.recv() => {
                if cancelled {
                    return Err(Failure::new(Exit::Interrupted, "interrupted before the task stopped"));
                }
                cancelled = true;
                view.note("cancelling the task; press Ctrl-C again to exit at once");
                let manager = manager.clone();
                // Spawned because it waits for the task to stop, and a second Ctrl-C must not.
                tokio::spawn(async move { manager.cancel(id).await });
            }
        }
    }
}

async fn subscribe(manager: &TaskManager, id: TaskId) -> Result<Subscription, Failure> {
    let events = manager.watch(Interest::Task(id), None).await;
    events.map_err(|error| Failure::new(Exit::Internal, with_causes(&error)))
}

fn rejected(error: SubmitError) -> Failure {
    match error {
        SubmitError::Invalid(faults) => {
            let lines: Vec<_> =
                faults.iter().map(|fault| fault_line(&fault.loc, &fault.msg)).collect();
            Failure::new(Exit::Usage, lines.join("\n"))
        }
        other => Failure::new(Exit::Internal, with_causes(&other)),
    }
}
