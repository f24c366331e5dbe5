//! Committed changes: the only source from which the manager learns.

use std::sync::Arc;
use std::time::Duration;

use super::change::AttemptEnd;
use super::record::TaskRecord;
use crate::task::{Task, TaskId, Timestamp};

/// Receives every commit, in order, before those who asked for the changes are answered.
pub(crate) trait Observer: Send + Sync + 'static {
    /// Runs on the writer's thread, so it must be quick.
    fn committed(&self, commit: Commit);
}

/// One committed transaction.
pub(crate) struct Commit {
    /// Number of changes that were asked for.
    pub(crate) size: usize,
    /// Time from its begin to the disk.
    pub(crate) took: Duration,
    pub(crate) changes: Vec<Committed>,
}

/// One committed change.
pub(crate) enum Committed {
    /// A task was stored, and is pending.
    Stored(Box<TaskRecord>),
    /// A task is running now, and its attempt belongs to this process.
    Claimed {
        record: Box<TaskRecord>,
        /// Its code, if the same commit has stored it.
        code: Option<Box<dyn Task>>,
    },
    /// A pending task was cancelled.
    Cancelled {
        id: TaskId,
        seq: i64,
        /// The task as it is now, if its row can be read.
        record: Option<Box<TaskRecord>>,
    },
    /// An attempt ended at this time.
    Ended(Arc<AttemptEnd>, Timestamp),
    /// The end of an attempt was not stored because its task belongs to another attempt.
    Disowned(Arc<AttemptEnd>),
}
