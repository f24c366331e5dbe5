//! Committed changes: the manager's only source of state changes.

use std::sync::Arc;
use std::time::Duration;

use super::change::AttemptEnd;
use super::record::TaskRecord;
use crate::task::{Task, TaskId, Timestamp};

/// Receives every commit, in order, before the callers are answered.
pub(crate) trait Observer: Send + Sync + 'static {
    /// Runs on the writer's thread and must not block.
    fn committed(&self, commit: Commit);
}

/// One committed transaction.
pub(crate) struct Commit {
    /// Number of changes in the batch.
    pub(crate) size: usize,
    /// Duration of the transaction, sync included.
    pub(crate) took: Duration,
    pub(crate) changes: Vec<Committed>,
}

/// One committed change.
pub(crate) enum Committed {
    /// A task was stored as pending.
    Stored(Box<TaskRecord>),
    /// A task was claimed for an attempt by this process.
    Claimed {
        record: Box<TaskRecord>,
        /// The task's code, if the same commit stored the task.
        code: Option<Box<dyn Task>>,
    },
    /// A pending task was cancelled.
    Cancelled {
        id: TaskId,
        seq: i64,
        /// The cancelled task, if its row can be read.
        record: Option<Box<TaskRecord>>,
    },
    /// An attempt ended at this time.
    Ended(Arc<AttemptEnd>, Timestamp),
    /// The end of an attempt was not stored because its task belongs to another attempt.
    Disowned(Arc<AttemptEnd>),
}
