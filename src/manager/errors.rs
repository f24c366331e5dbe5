//! Errors of the manager's methods. Independent of HTTP.

use crate::store::StoreError;
use crate::task::{Fault, PathError, TaskId, TaskStatus};

/// Why a submission was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("invalid submission")]
    Invalid(Vec<Fault>),
    #[error("the server is shutting down: try again after its restart")]
    Draining,
    #[error("A task is already running: {}", .0.map(|id| id.to_string()).unwrap_or_default())]
    Busy(Option<TaskId>),
    #[error("queue full (limit {0}): try again later")]
    QueueFull(usize),
    #[error("this Idempotency-Key was used with another body: use a new key for each submission")]
    KeyReused,
    #[error(
        "unfinished task {0} writes the same output_file_path: choose another file, or wait for that task"
    )]
    OutputInUse(TaskId),
    #[error(
        "unfinished task {0} writes a folder around this output_file_path, or a file in it: choose another \
         path, or wait for that task"
    )]
    OutputOverlaps(TaskId),
    #[error("the task was already retried: see its retried_by")]
    RetriedBefore,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a retry was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetryError {
    #[error("Task not found")]
    Unknown,
    #[error("Task cannot be retried, it is still {}: cancel it first", .0.name())]
    Unfinished(TaskStatus),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Why an output cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("Task not found")]
    Unknown,
    #[error(
        "no output: the task is {}, and only a completed one has published its file", .0.name()
    )]
    NotCompleted(TaskStatus),
    #[error("the task has no output_file_path")]
    NoPath,
    #[error(
        "no output: it is optional for this task type, and the task wrote none at `{0}`, or it was removed"
    )]
    NotWritten(String),
    /// The file no longer exists or is no longer readable.
    #[error(transparent)]
    Gone(#[from] PathError),
    #[error("the thread that opens the file panicked")]
    Panicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}
