//! Cache of the ready tasks that wait for a slot.

use crate::store::record::TaskRecord;
use crate::store::slots::FreeSlots;

/// A longer queue is left to the table. In tests it is so short that they get there.
const MOST_KNOWN: usize = if cfg!(test) { 3 } else { 256 };

/// The ready tasks that a free slot would be for.
#[derive(Default)]
pub(super) enum Ready {
    /// The table has to be asked.
    #[default]
    Unknown,
    /// These, in the order in which they run. The table may have more that there is no slot of their
    /// kind for (types at their limit, suspects); when such a slot becomes free the table has to be
    /// asked again.
    Known(Vec<TaskRecord>),
}

impl Ready {
    /// Takes out the tasks that there are free slots for, and takes the slots.
    pub(super) fn take(&mut self, free: &mut FreeSlots) -> Vec<TaskRecord> {
        let Self::Known(tasks) = self else { return Vec::new() };
        tasks.extract_if(.., |record| free.take(&record.info.task_type)).collect()
    }

    /// Adds a task that was submitted after all that are known.
    pub(super) fn add(&mut self, record: &TaskRecord) {
        let Self::Known(tasks) = self else { return };
        if tasks.len() == MOST_KNOWN {
            *self = Self::Unknown;
            return;
        }
        let before = |known: &TaskRecord| known.info.priority >= record.info.priority;
        tasks.insert(tasks.partition_point(before), record.clone());
    }
}
