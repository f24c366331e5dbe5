//! All attempts of this server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::state::Attempt;
use crate::task::TaskId;

/// All attempts, by the id of their task. Written by the fold and the runner, read by everyone.
#[derive(Debug)]
pub(in crate::manager) struct Attempts {
    by_task: RwLock<HashMap<TaskId, Arc<Attempt>>>,
    count: watch::Sender<usize>,
}

impl Attempts {
    pub(in crate::manager) fn new() -> Self {
        Self { by_task: RwLock::default(), count: watch::Sender::new(0) }
    }

    pub(super) fn insert(&self, attempt: Arc<Attempt>) {
        let mut attempts = self.by_task.write();
        attempts.insert(attempt.claimed.task_id, attempt);
        self.count.send_replace(attempts.len());
    }

    /// Removes one attempt at a task, and no later one.
    pub(in crate::manager) fn remove(&self, id: TaskId, epoch: i64) {
        let mut attempts = self.by_task.write();
        if let Entry::Occupied(entry) = attempts.entry(id)
            && entry.get().epoch == epoch
        {
            entry.remove().end();
        }
        self.count.send_replace(attempts.len());
    }

    /// Skips attempts that are over: the database has the newer record.
    pub(in crate::manager) fn get(&self, id: TaskId) -> Option<Arc<Attempt>> {
        self.by_task.read().get(&id).filter(|attempt| !attempt.is_over()).cloned()
    }

    /// The attempt that began last.
    pub(in crate::manager) fn newest(&self) -> Option<Arc<Attempt>> {
        let attempts = self.by_task.read();
        let began = |attempt: &&Arc<Attempt>| (attempt.claimed.started_at, attempt.seq);
        attempts.values().max_by_key(began).cloned()
    }

    /// Number of attempts at tasks of a type.
    pub(in crate::manager) fn of_type(&self, task_type: &str) -> usize {
        let attempts = self.by_task.read();
        attempts.values().filter(|attempt| attempt.claimed.task_type == task_type).count()
    }

    pub(in crate::manager) fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// All of them, in no order.
    pub(in crate::manager) fn all(&self) -> Vec<Arc<Attempt>> {
        self.by_task.read().values().cloned().collect()
    }

    /// Resolves when there is an attempt.
    pub(in crate::manager) async fn occupied(&self) {
        // Cannot fail: the sender is right here.
        let _ = self.count.subscribe().wait_for(|count| *count > 0).await;
    }

    /// Resolves when there is none.
    pub(in crate::manager) async fn emptied(&self) {
        // Cannot fail: the sender is right here.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}
