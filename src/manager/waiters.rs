//! Requests that wait for a task to end.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::task::TaskId;

/// Wakes requests that wait for a task. They register **before** they look at the task, so that an end
/// between the look and the wait is not missed.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<TaskId, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    /// Cancelled when the task has ended; a flag that many can wait for.
    ended: CancellationToken,
    waiters: usize,
}

impl Waiters {
    /// Interest in one task, until it is dropped.
    pub(super) fn register(self: &Arc<Self>, id: TaskId) -> Waiter {
        let mut entries = self.0.lock();
        let entry = entries.entry(id).or_default();
        entry.waiters += 1;
        Waiter { waiters: Arc::clone(self), id, ended: entry.ended.clone() }
    }

    /// The task has ended.
    pub(super) fn wake(&self, id: TaskId) {
        if let Some(entry) = self.0.lock().remove(&id) {
            entry.ended.cancel();
        }
    }
}

/// Interest in the end of one task.
#[derive(Debug)]
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    id: TaskId,
    ended: CancellationToken,
}

impl Waiter {
    /// Resolves when the task has ended since this was registered.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.ended.is_cancelled() {
            return;
        }
        let mut entries = self.waiters.0.lock();
        if let Some(entry) = entries.get_mut(&self.id) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                entries.remove(&self.id);
            }
        }
    }
}
