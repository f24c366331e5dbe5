//! A stored task.

use crate::task::{TaskInfo, Timestamp};

/// Message of a running task that has not reported anything.
pub(super) const RUNNING_MESSAGE: &str = "Task is running";
/// Message of a cancelled task.
pub(crate) const CANCELLED_MESSAGE: &str = "Task cancelled by user";

/// A stored task: what clients see of it, and what guards its transitions.
#[derive(Clone, Debug)]
pub(crate) struct TaskRecord {
    /// Place in the order of submission.
    pub(crate) seq: i64,
    /// Number of claims.
    pub(crate) epoch: i64,
    /// Number of times that the server died while the task ran.
    pub(crate) interruptions: i64,
    /// Not before this time.
    pub(crate) due_at: Option<Timestamp>,
    /// Whether this build cannot run the task.
    pub(crate) unrunnable: bool,
    /// What clients see.
    pub(crate) info: TaskInfo,
}

impl TaskRecord {
    /// Whether this task may be what killed the server: it died twice while the task ran.
    pub(crate) fn is_suspect(&self) -> bool {
        self.interruptions >= 2
    }
}

/// A pending task that waits for a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredDue {
    pub(crate) seq: i64,
    pub(crate) due_at: Timestamp,
    /// The time that a client asked for.
    pub(crate) run_at: Option<Timestamp>,
}
