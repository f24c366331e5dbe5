//! Order of the states of one task.

use crate::task::TaskStatus;

/// Place of a state among all states of its task, so that a stream can leave out what is older than
/// what its reader has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::manager) struct Stamp {
    epoch: i64,
    /// An attempt runs, then the task is pending again, and then it has ended.
    phase: u8,
    /// Version of the progress.
    version: u64,
    cancelling: bool,
}

impl Stamp {
    /// Of a task that is not running, or that runs and has not reported anything.
    pub(in crate::manager) fn of(epoch: i64, status: TaskStatus) -> Self {
        let phase = match status {
            TaskStatus::Running => 0,
            TaskStatus::Pending => 1,
            TaskStatus::Completed | TaskStatus::Failed | TaskStatus::Cancelled => 2,
        };
        Self { epoch, phase, version: 0, cancelling: false }
    }

    /// Of a running task.
    pub(super) fn running(epoch: i64, version: u64, cancelling: bool) -> Self {
        Self { epoch, phase: 0, version, cancelling }
    }
}
