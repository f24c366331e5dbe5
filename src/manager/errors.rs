//! Errors of the manager's methods. Nothing here knows of HTTP.

use super::retry::RetryCounts;
use crate::store::StoreError;
use crate::task::{Fault, PathError, TaskId, TaskStatus};

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
