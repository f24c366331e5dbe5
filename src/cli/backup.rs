//! `task-server backup`: copies the database, also while the server runs.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tokio::signal::unix::SignalKind;

use super::exit::{EXIT_CODES, Exit, Failure, Outcome, listen_for};
use super::settings::SettingsFile;
use super::terminal::print_line;
use crate::store::{BackupError, backup};
use crate::task::with_causes;

const EXAMPLES: &str = "\
Examples:
  task-server backup tasks-2026-01-31.db
  task-server backup --database /data/tasks.db /backups/tasks.db

The copy contains every task accepted before the backup began. To restore it, stop the server, move
tasks.db, tasks.db-wal and tasks.db-shm away, and put the copy in place of tasks.db. Tasks that were
running run again.";

const STOPPED: &str = "interrupted by a signal, no copy was made";

/// Copies the database to a new file, also while the server runs, and checks the copy
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub(super) struct BackupArgs {
    /// File to create
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Database [default: that of the settings file, else tasks.db]
    #[arg(long, env = "TASK_SERVER_DATABASE", value_name = "FILE")]
    database: Option<PathBuf>,

    #[command(flatten)]
    settings: SettingsFile,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: BackupArgs) -> Outcome {
    let database = match args.database {
        Some(database) => database,
        None => args.settings.load()?.database,
    };
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let mut terminate = listen_for(SignalKind::terminate())?;
    let made = tokio::select! {
        made = backup(&database, &args.file) => made,
        _ = interrupt.recv() => return Err(Failure::new(Exit::Interrupted, STOPPED)),
        _ = terminate.recv() => return Err(Failure::new(Exit::Terminated, STOPPED)),
    };
    let made = made.map_err(|error| {
        let exit = match error {
            BackupError::NoDatabase(_) => Exit::NoInput,
            BackupError::Exists(_) => Exit::CannotCreate,
            BackupError::Open(_) => Exit::Data,
            BackupError::Write { .. } | BackupError::Copy(_) | BackupError::Damaged(_) => Exit::Io,
        };
        Failure::new(exit, with_causes(&error))
    })?;
    let (tasks, bytes) = (made.tasks, made.bytes);
    let file = args.file.display().to_string();
    print_line(&match args.json {
        true => json!({ "file": file, "bytes": bytes, "tasks": tasks }).to_string(),
        false => format!("{file}: {tasks} tasks, {bytes} bytes"),
    })?;
    Ok(Exit::Done)
}
