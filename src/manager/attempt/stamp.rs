//! Order of the states of a task.

use crate::task::TaskStatus;

/// Position of a state among all states of its task. Lets a stream skip states that are older than the
/// one its reader has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    epoch: i64,
    /// Running, then pending again, then ended.
    phase: u8,
    /// Version of the progress.
    version: u64,
    cancelling: bool,
}

impl Stamp {
    /// Stamp of a task that is not running, or has not reported progress.
    pub(crate) fn of(epoch: i64, status: TaskStatus) -> Self {
        let phase = match status {
            TaskStatus::Running => 0,
            TaskStatus::Pending => 1,
            TaskStatus::Completed | TaskStatus::Failed | TaskStatus::Cancelled => 2,
        };
        Self { epoch, phase, version: 0, cancelling: false }
    }

    /// Stamp of a running task.
    pub(super) fn running(epoch: i64, version: u64, cancelling: bool) -> Self {
        Self { epoch, phase: 0, version, cancelling }
    }
}
