//! Memory for large buffers: one budget for all tasks together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{TaskContext, TaskError};

/// What all tasks together may hold, in bytes. The largest image that is accepted takes nearly all of
/// it by itself; of photographs there is room for dozens.
pub const MEMORY_BUDGET: u64 = 2560 * UNIT;

/// Memory is counted in units of this size, in bytes, because a semaphore counts to 2^32.
const UNIT: u64 = 1 << 20;

/// What is left of [`MEMORY_BUDGET`]. Requests are met in their order, so that a large one is not
/// starved by small ones.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<Semaphore>);

/// Memory that was promised to a task, until this is dropped.
#[derive(Debug)]
pub struct ReservedMemory {
    bytes: u64,
    _units: OwnedSemaphorePermit,
}

impl ReservedMemory {
    /// Number of bytes that were asked for.
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
    /// Reserves memory for large buffers out of the budget that all tasks share
    /// ([`MEMORY_BUDGET`]), and waits until there is enough. Meanwhile the task says so in its message,
    /// and its timeout does not tick.
    ///
    /// Reserve everything at once: a task that holds memory while it waits for more could wait for
    /// ever. Move what this returns into the closure that needs the memory, so that it is given back
    /// when the closure ends, even after a timeout.
    ///
    /// # Errors
    /// If it is more than the whole budget, or [`TaskError::Cancelled`] if the task should stop.
    pub async fn reserve_memory(&self, bytes: u64) -> Result<ReservedMemory, TaskError> {
        if bytes > MEMORY_BUDGET {
            return Err(TaskError::permanent(format!(
                "the task needs {} MiB of memory, more than the {} MiB that all tasks share",
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
