//! The ready tasks that wait for a place, as far as they are known without a look into the table.

use super::TaskRecord;
use super::places::Room;
use crate::task::Task;

/// A longer queue is left to the table. In tests it is so short that they get there.
const MOST_KNOWN: usize = if cfg!(test) { 3 } else { 256 };

/// A ready task, and its code if it comes from a submission and not from the table.
pub(super) type ReadyTask = (TaskRecord, Option<Box<dyn Task>>);

/// The ready tasks that a free place would be for.
#[derive(Default)]
pub(super) enum Ready {
    /// The table has to be asked.
    #[default]
    Unknown,
    /// These, in the order in which they are to run. The table may have more that no place of their kind
    /// is free for (types at their limit, suspects); when one of those becomes free it has to be asked
    /// again.
    Known(Vec<ReadyTask>),
}

impl Ready {
    /// Takes out the tasks that there is room for, and takes their places.
    pub(super) fn take(&mut self, room: &mut Room) -> Vec<ReadyTask> {
        let Self::Known(tasks) = self else { return Vec::new() };
        tasks.extract_if(.., |(record, _)| room.take(&record.info.task_type)).collect()
    }

    /// Adds a task that was submitted after all that are known.
    pub(super) fn add(&mut self, task: ReadyTask) {
        let Self::Known(tasks) = self else { return };
        if tasks.len() == MOST_KNOWN {
            *self = Self::Unknown;
            return;
        }
        let before = |(known, _): &ReadyTask| known.info.priority >= task.0.info.priority;
        tasks.insert(tasks.partition_point(before), task);
    }
}
