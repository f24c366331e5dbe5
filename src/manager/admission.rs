//! Counts what is unfinished, so that limits hold before anything is stored.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::task::TaskId;

/// How many tasks may be unfinished.
#[derive(Debug)]
pub(super) struct Admission {
    max_pending: usize,
    /// One unfinished task at a time (`--exclusive`).
    exclusive: bool,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    pending: usize,
    unfinished: usize,
    /// The task that was let in last.
    latest: Option<TaskId>,
}

/// Why a task is not let in.
#[derive(Debug)]
pub(super) enum Refusal {
    /// `--exclusive`, and there is an unfinished task: this one, if it came in since the start.
    Busy(Option<TaskId>),
    /// That many tasks are pending, which is the limit.
    QueueFull(usize),
}

impl Admission {
    pub(super) fn new(max_pending: usize, exclusive: bool, pending: usize) -> Self {
        let counts = Counts { pending, unfinished: pending, latest: None };
        Self { max_pending, exclusive, counts: Mutex::new(counts) }
    }

    /// Lets a new task in. Counted from here on; taken back by [`left`](Self::left).
    pub(super) fn reserve(&self, id: TaskId) -> Result<(), Refusal> {
        let mut counts = self.lock();
        if self.exclusive && counts.unfinished > 0 {
            return Err(Refusal::Busy(counts.latest));
        }
        if counts.pending >= self.max_pending {
            return Err(Refusal::QueueFull(self.max_pending));
        }
        counts.pending += 1;
        counts.unfinished += 1;
        counts.latest = Some(id);
        Ok(())
    }

    /// A task that was let in was not stored, or was cancelled before it ran.
    pub(super) fn left(&self) {
        let mut counts = self.lock();
        counts.pending -= 1;
        counts.unfinished -= 1;
    }

    /// A pending task runs.
    pub(super) fn began(&self) {
        self.lock().pending -= 1;
    }

    /// A running task waits for another attempt.
    pub(super) fn returned(&self) {
        self.lock().pending += 1;
    }

    /// A running task has ended.
    pub(super) fn ended(&self) {
        self.lock().unfinished -= 1;
    }

    /// How many tasks are pending.
    pub(super) fn pending(&self) -> usize {
        self.lock().pending
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
