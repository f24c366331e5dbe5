//! Number of tasks, known without counting: the stored ones of each status, and those on their way.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::task::{TaskId, TaskStatus};

/// Counts of tasks. The engine counts at the start; from then on the writer keeps the stored tasks up
/// to date after each commit, and whoever admits a task holds a [`Reservation`] until it is counted.
/// The lock guards all of it, so that two racing submissions see each other.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    /// By status. Below zero while tasks are erased that were not counted yet.
    stored: [i64; TaskStatus::ALL.len()],
    /// Pending tasks that this build cannot run, by `seq`. They hold up nothing, so they do not count
    /// as unfinished.
    unrunnable: HashSet<i64>,
    reserved: usize,
    /// The task that was admitted last.
    latest: Option<TaskId>,
}

/// Tasks that this server has still to finish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unfinished {
    /// Pending or about to be stored.
    pub(crate) pending: usize,
    pub(crate) running: usize,
    /// The task that was admitted last since the start.
    pub(crate) latest: Option<TaskId>,
}

impl Counts {
    /// Stored tasks with this status.
    pub(crate) fn get(&self, status: TaskStatus) -> u64 {
        u64::try_from(self.0.lock().stored[status as usize]).unwrap_or(0)
    }

    pub(crate) fn unfinished(&self) -> Unfinished {
        self.0.lock().unfinished()
    }

    /// Counts a new task from here on, if `check` admits it.
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

    /// A pending task turned out to be one that this build cannot run.
    pub(super) fn set_unrunnable(&self, seq: i64) {
        self.0.lock().unrunnable.insert(seq);
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

/// Counts a task that is on its way to being stored. Goes with it to the writer, so that a client
/// who goes away does not take it along.
#[derive(Debug)]
pub(crate) struct Reservation(Arc<Counts>);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.0.lock().reserved -= 1;
    }
}
