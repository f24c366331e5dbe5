//! Memory for large buffers: one budget that all tasks share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{TaskContext, TaskError};

/// Memory budget of all tasks together, in bytes. The largest accepted image takes nearly all of
/// it; dozens of photographs fit at once.
pub const MEMORY_BUDGET: u64 = 2560 * UNIT;

/// Bytes per permit: the budget in bytes exceeds the 2^32 permits of a semaphore.
const UNIT: u64 = 1 << 20;

/// Unreserved part of [`MEMORY_BUDGET`]. Served in order, so that large requests do not starve.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<Semaphore>);

/// Memory reserved for a task. Dropping it returns the memory to the budget.
#[derive(Debug)]
pub struct ReservedMemory {
    bytes: u64,
    _units: OwnedSemaphorePermit,
}

impl ReservedMemory {
    /// Number of reserved bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl MemoryBudget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new((MEMORY_BUDGET / UNIT) as usize)))
    }
}

impl TaskContext {
    /// Reserves memory for large buffers from the budget that all tasks share ([`MEMORY_BUDGET`]).
    /// While it waits, the task's message says so and its timeout is paused.
    ///
    /// Reserve everything at once: tasks that hold memory while they wait for more can deadlock.
    /// Move the reservation into the closure that uses the memory, so that it is released when the
    /// closure ends, even after a timeout.
    ///
    /// # Errors
    /// If `bytes` exceeds the budget, or [`TaskError::Cancelled`] if the task is asked to stop.
    pub async fn reserve_memory(&self, bytes: u64) -> Result<ReservedMemory, TaskError> {
        if bytes > MEMORY_BUDGET {
            return Err(TaskError::permanent(format!(
                "the task needs {} MiB of memory, but all tasks share a budget of {} MiB",
                bytes.div_ceil(UNIT),
                MEMORY_BUDGET / UNIT
            )));
        }
        let units = bytes.div_ceil(UNIT) as u32;
        let MemoryBudget(budget) = &self.attempt.memory;
        let units = match Arc::clone(budget).try_acquire_many_owned(units) {
            Ok(units) => units,
            Err(_) => {
                let message = format!("Waiting for {units} MiB of memory");
                let acquired = Arc::clone(budget).acquire_many_owned(units);
                self.wait_with_message(message, acquired)
                    .await?
                    .expect("the semaphore of the memory budget is never closed")
            }
        };
        Ok(ReservedMemory { bytes, _units: units })
    }
}
