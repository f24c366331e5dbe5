//! Stored tasks.

use crate::task::{TaskInfo, TaskStatus, Timestamp};

/// Message of a running task that has not reported progress.
pub(super) const RUNNING_MESSAGE: &str = "Task is running";
/// Message of a cancelled task.
pub(crate) const CANCELLED_MESSAGE: &str = "Task cancelled by user";

/// A stored task: the part that clients see, and the guards of its transitions.
#[derive(Clone, Debug)]
pub(crate) struct TaskRecord {
    /// Number in the order of submission.
    pub(crate) seq: i64,
    /// Number of claims.
    pub(crate) epoch: i64,
    /// Number of server crashes while the task ran.
    pub(crate) interruptions: i64,
    /// Earliest start of the next attempt.
    pub(crate) due_at: Option<Timestamp>,
    /// Whether this build cannot run the task.
    pub(crate) unrunnable: bool,
    /// The part that clients see.
    pub(crate) info: TaskInfo,
}

impl TaskRecord {
    /// Whether the task may be crashing the server: two crashes happened while it ran.
    pub(crate) fn is_suspect(&self) -> bool {
        self.interruptions >= 2
    }
}

/// The end of the log of an attempt.
#[derive(Debug)]
pub(crate) struct LogTail {
    pub(crate) seq: i64,
    pub(crate) attempt: u32,
    /// Size of the whole log.
    pub(crate) bytes: u64,
    pub(crate) tail: String,
}

/// The task of an attempt with a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogOwner {
    pub(crate) seq: i64,
    pub(crate) status: TaskStatus,
    /// Number of attempts that the task has used.
    pub(crate) attempts: u32,
    /// Whether the end of the log is stored.
    pub(crate) is_stored: bool,
}

/// A pending task that waits for a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredDue {
    pub(crate) seq: i64,
    pub(crate) due_at: Timestamp,
    /// The time that the client requested.
    pub(crate) run_at: Option<Timestamp>,
}
