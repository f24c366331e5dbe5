//! All attempts of this node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::state::Attempt;
use crate::store::Limits;
use crate::task::TaskId;

/// All attempts, by task id. Attempts are inserted by the fold, and removed by the fold or the runner that
/// gives up storing an end; all parts of the manager read them. `count` is the size of the map, written
/// under its lock, for those that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    by_task: RwLock<HashMap<TaskId, Arc<Attempt>>>,
    count: watch::Sender<usize>,
}

impl Attempts {
    pub(super) fn insert(&self, attempt: Arc<Attempt>) {
        let mut attempts = self.by_task.write();
        attempts.insert(attempt.claimed.task_id, attempt);
        self.count.send_replace(attempts.len());
    }

    /// Removes an attempt, but not a later one at the same task.
    pub(crate) fn remove(&self, id: TaskId, epoch: i64) {
        let mut attempts = self.by_task.write();
        if let Entry::Occupied(entry) = attempts.entry(id)
            && entry.get().epoch == epoch
        {
            entry.remove().end();
        }
        self.count.send_replace(attempts.len());
    }

    /// Skips attempts that are over: the database has the newer record.
    pub(crate) fn get(&self, id: TaskId) -> Option<Arc<Attempt>> {
        self.by_task.read().get(&id).filter(|attempt| !attempt.is_over()).cloned()
    }

    /// The attempt that started last.
    pub(crate) fn newest(&self) -> Option<Arc<Attempt>> {
        let attempts = self.by_task.read();
        let began = |attempt: &&Arc<Attempt>| (attempt.claimed.started_at, attempt.seq);
        attempts.values().max_by_key(began).cloned()
    }

    /// Number of attempts at tasks of a type.
    pub(crate) fn of_type(&self, task_type: &str) -> usize {
        let attempts = self.by_task.read();
        attempts.values().filter(|attempt| attempt.claimed.task_type == task_type).count()
    }

    /// Number of CPU slots that the attempts take while they run.
    pub(crate) fn cpus(&self, limits: &Limits) -> usize {
        let of = |attempt: &Arc<Attempt>| limits.of_type(&attempt.claimed.task_type);
        self.by_task.read().values().filter_map(of).map(|limit| limit.cpus).sum()
    }

    pub(crate) fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// All attempts, unordered.
    pub(crate) fn all(&self) -> Vec<Arc<Attempt>> {
        self.by_task.read().values().cloned().collect()
    }

    /// Resolves when there is an attempt.
    pub(crate) async fn occupied(&self) {
        // Cannot fail while `self` holds the sender.
        let _ = self.count.subscribe().wait_for(|count| *count > 0).await;
    }

    /// Resolves when there is no attempt.
    pub(crate) async fn emptied(&self) {
        // Cannot fail while `self` holds the sender.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}
