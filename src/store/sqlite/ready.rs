//! Cache of the ready tasks that wait for a slot. Owned by the writer.

use crate::store::record::TaskRecord;
use crate::store::slots::FreeSlots;

/// Maximum length of the cache. Short in tests, so that they exceed it.
const MOST_KNOWN: usize = if cfg!(test) { 3 } else { 256 };

/// Candidates for the next free slot.
#[derive(Default)]
pub(super) enum Ready {
    /// Must be read from the table.
    #[default]
    Unknown,
    /// These, in the order in which they run. The table may hold more whose slots are all taken (types
    /// at their limit, suspects); when such a slot is freed, the table must be read again.
    Known(Vec<TaskRecord>),
}

impl Ready {
    /// Removes the tasks that have free slots, and takes those slots.
    pub(super) fn take(&mut self, free: &mut FreeSlots) -> Vec<TaskRecord> {
        let Self::Known(tasks) = self else { return Vec::new() };
        tasks.extract_if(.., |record| free.take(&record.info.task_type)).collect()
    }

    /// Adds a task that was submitted after all the others.
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
