//! Counts what is unfinished, so that limits hold before anything is stored. What this build cannot run
//! does not count: it would be in the way of everyone for ever.

use std::collections::HashSet;

use crate::task::TaskId;
use parking_lot::Mutex;

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
    /// Pending tasks that are not counted, by `seq`: this build cannot run them.
    unrunnable: HashSet<i64>,
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
    /// `pending` are all pending tasks that are stored, `unrunnable` those among them that are known
    /// to be.
    pub(super) fn new(
        max_pending: usize,
        exclusive: bool,
        pending: usize,
        unrunnable: Vec<i64>,
    ) -> Self {
        let unrunnable = HashSet::from_iter(unrunnable);
        let pending = pending.saturating_sub(unrunnable.len());
        let counts = Counts { pending, unfinished: pending, unrunnable, latest: None };
        Self { max_pending, exclusive, counts: Mutex::new(counts) }
    }

    /// Lets a new task in. Counted from here on; taken back by [`left`](Self::left).
    pub(super) fn reserve(&self, id: TaskId) -> Result<(), Refusal> {
        let mut counts = self.counts.lock();
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

    /// A task that was let in was not stored.
    pub(super) fn left(&self) {
        self.counts.lock().leave();
    }

    /// A pending task was cancelled.
    pub(super) fn cancelled(&self, seq: i64) {
        let mut counts = self.counts.lock();
        if !counts.unrunnable.remove(&seq) {
            counts.leave();
        }
    }

    /// A pending task turned out to be one that this build cannot run.
    pub(super) fn set_aside(&self, seq: i64) {
        let mut counts = self.counts.lock();
        if counts.unrunnable.insert(seq) {
            counts.leave();
        }
    }

    /// A pending task runs.
    pub(super) fn began(&self) {
        self.counts.lock().pending -= 1;
    }

    /// A running task waits for another attempt.
    pub(super) fn returned(&self) {
        self.counts.lock().pending += 1;
    }

    /// A running task has ended.
    pub(super) fn ended(&self) {
        self.counts.lock().unfinished -= 1;
    }

    /// Number of pending tasks that can run.
    pub(super) fn pending(&self) -> usize {
        self.counts.lock().pending
    }
}

impl Counts {
    fn leave(&mut self) {
        self.pending -= 1;
        self.unfinished -= 1;
    }
}
