//! Requests that wait for the end of a task.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::task::TaskId;

/// Requests that wait for a task. They register **before** they read the task, so that they do not miss
/// an end between the read and the wait. The fold wakes and removes the entry of an ended task; the last
/// waiter that gives up removes the entry of another one. The lock guards the map and the counts.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<TaskId, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    /// Cancelled when the task ends.
    ended: CancellationToken,
    waiters: usize,
}

impl Waiters {
    /// Registers interest in the end of a task, until the waiter is dropped.
    pub(super) fn register(self: &Arc<Self>, id: TaskId) -> Waiter {
        let mut entries = self.0.lock();
        let entry = entries.entry(id).or_default();
        entry.waiters += 1;
        Waiter { waiters: Arc::clone(self), id, ended: entry.ended.clone() }
    }

    /// Wakes all requests that wait for this task.
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
    /// Resolves when the task ends, or has ended since the registration.
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
