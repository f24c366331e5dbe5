//! What requests to the manager can come to. Nothing here knows of HTTP.

use crate::store::{Cursor, StoreError};
use crate::task::{Fault, PathError, TaskId, TaskInfo, TaskStatus};

/// Why a submission was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubmitError {
    #[error("the submission is not valid")]
    Invalid(Vec<Fault>),
    #[error("the server is shutting down")]
    Draining,
    #[error("a task is already running")]
    Busy(Option<TaskId>),
    #[error("{0} tasks are waiting, which is the limit")]
    QueueFull(usize),
    #[error("the idempotency key was used with another body")]
    KeyReused,
    #[error("task {0} writes the same output")]
    OutputInUse(TaskId),
    #[error("the task was retried before")]
    RetriedBefore,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a request to cancel.
#[derive(Debug)]
pub(crate) enum CancelOutcome {
    Cancelled,
    /// It runs, was asked to stop, and has not done so yet.
    Requested,
    AlreadyFinal(TaskStatus),
    /// It runs, but its attempt is not there to be asked: its end is still being stored.
    Ending,
    Unknown,
}

/// Why a task was not submitted again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetryError {
    #[error("there is no such task")]
    Unknown,
    #[error("the task is {}", .0.name())]
    Unfinished(TaskStatus),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Result of a bulk retry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RetryCounts {
    /// Finished tasks without a retry that matched.
    pub(crate) matched: usize,
    /// Of these, those that were submitted again.
    pub(crate) submitted: usize,
    /// Of these, those that cannot be submitted now: an unfinished task writes the same output, or what
    /// was submitted is not valid any more.
    pub(crate) conflicts: usize,
}

/// Why a bulk retry ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RetryAllError {
    #[error("{limit} tasks are waiting, which is the limit")]
    QueueFull {
        limit: usize,
        /// Tasks before that.
        counts: RetryCounts,
    },
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Why there is no output to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("there is no such task")]
    Unknown,
    #[error("the task is {}", .0.name())]
    NotCompleted(TaskStatus),
    #[error("the task wrote no file")]
    NoPath,
    /// It is not there any more, or may not be read any more.
    #[error(transparent)]
    Gone(#[from] PathError),
    #[error("the thread that opens the file panicked")]
    Panicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a request to cancel many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CancelCounts {
    /// Unfinished tasks that matched.
    pub(crate) matched: usize,
    /// Of these, those that are cancelled now.
    pub(crate) cancelled: usize,
    /// Of these, those that run and were asked to stop.
    pub(crate) requested: usize,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) tasks: Vec<TaskInfo>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<Cursor>,
}

/// How busy the server is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) running: usize,
    pub(crate) pending: usize,
    /// Threads whose attempt was given up.
    pub(crate) abandoned_threads: usize,
    /// Whether they hold every CPU slot, so that blocking work has to wait for them.
    pub(crate) cpu_slots_exhausted: bool,
}
