//! Task counts, kept in memory: stored tasks by status, and reservations.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::task::{TaskId, TaskStatus};

/// Task counts. The engine counts once at the start; from then on the writer updates the stored tasks
/// after each commit, and admission adds a [`Reservation`] for each task on its way to the writer. Read
/// by admission, lists and metrics. One lock guards it all, so that racing submissions see each other.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    /// By status. Negative while tasks are erased that the start has not yet counted.
    stored: [i64; TaskStatus::ALL.len()],
    /// Pending tasks that this build cannot run, by `seq`. They do not count as unfinished.
    unrunnable: HashSet<i64>,
    reserved: usize,
    /// The last admitted task.
    latest: Option<TaskId>,
}

/// Numbers of unfinished tasks that this node can run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfinished {
    /// Pending tasks and reservations.
    pub(crate) pending: usize,
    pub(crate) running: usize,
    /// The last task admitted since the start.
    pub(crate) latest: Option<TaskId>,
}

impl Counts {
    /// Number of stored tasks with this status.
    pub(crate) fn get(&self, status: TaskStatus) -> u64 {
        u64::try_from(self.0.lock().stored[status as usize]).unwrap_or(0)
    }

    pub(crate) fn unfinished(&self) -> Unfinished {
        self.0.lock().unfinished()
    }

    /// Counts a new task as pending from here on, if `check` admits it.
    pub(crate) fn reserve<E>(
        self: &Arc<Self>,
        id: TaskId,
        check: impl FnOnce(Unfinished) -> Result<(), E>,
    ) -> Result<Reservation, E> {
        let mut numbers = self.0.lock();
        check(numbers.unfinished())?;
        numbers.reserved += 1;
        numbers.latest = Some(id);
        Ok(Reservation(Arc::clone(self)))
    }

    pub(super) fn add(&self, status: TaskStatus, tasks: i64) {
        self.0.lock().stored[status as usize] += tasks;
    }

    pub(super) fn change(&self, from: TaskStatus, to: TaskStatus) {
        let mut numbers = self.0.lock();
        numbers.stored[from as usize] -= 1;
        numbers.stored[to as usize] += 1;
    }

    /// Marks a pending task as one that this build cannot run.
    pub(super) fn set_unrunnable(&self, seq: i64) {
        self.0.lock().unrunnable.insert(seq);
    }

    /// Replaces the set of pending tasks that this build cannot run.
    pub(super) fn replace_unrunnable(&self, seqs: Vec<i64>) {
        self.0.lock().unrunnable = seqs.into_iter().collect();
    }

    pub(super) fn cancelled(&self, seq: i64) {
        self.change(TaskStatus::Pending, TaskStatus::Cancelled);
        self.0.lock().unrunnable.remove(&seq);
    }
}

impl Numbers {
    fn unfinished(&self) -> Unfinished {
        let stored = |status| usize::try_from(self.stored[status as usize]).unwrap_or(0);
        let runnable = stored(TaskStatus::Pending).saturating_sub(self.unrunnable.len());
        Unfinished {
            pending: runnable + self.reserved,
            running: stored(TaskStatus::Running),
            latest: self.latest,
        }
    }
}

/// Counts a task until it is stored or refused. Travels with the task to the writer, so a client that
/// disconnects does not release it early.
#[derive(Debug)]
pub(crate) struct Reservation(Arc<Counts>);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.0.lock().reserved -= 1;
    }
}
