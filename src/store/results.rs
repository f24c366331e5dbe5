//! Results of a commit: what an engine reports to the writer.

use std::collections::HashMap;

use super::change::{CancelEffect, Refused};
use super::record::TaskRecord;
use crate::task::{TaskId, TaskStatus, Timestamp};

/// Results of a committed transaction.
pub(super) struct Results {
    /// Time of the transaction.
    pub(super) at: Timestamp,
    /// In the order of the batch. A stored task may already be running.
    pub(super) submitted: Vec<Result<Box<TaskRecord>, Refused>>,
    /// Ends, by `seq` and epoch, that were not stored because their task belongs to another attempt.
    pub(super) disowned: Vec<(i64, i64)>,
    pub(super) cancelled: Cancelled,
    /// In the order of the batch.
    pub(super) erased: Vec<Erased>,
    /// Tasks that were pending and are now running.
    pub(super) claimed: Vec<TaskRecord>,
    /// After a change of the task types: all pending tasks that this build cannot run, by `seq`.
    pub(super) all_unrunnable: Option<Vec<i64>>,
    /// Pending tasks whose rows cannot be read, by `seq`.
    pub(super) unrunnable: Vec<i64>,
    /// Whether the next commit may claim more tasks even if no change is queued.
    pub(super) claims_left: bool,
}

impl Results {
    pub(super) fn new(at: Timestamp) -> Self {
        Self {
            at,
            submitted: Vec::new(),
            disowned: Vec::new(),
            cancelled: Cancelled::default(),
            erased: Vec::new(),
            claimed: Vec::new(),
            all_unrunnable: None,
            unrunnable: Vec::new(),
            claims_left: false,
        }
    }
}

/// Effects of cancellations.
#[derive(Default)]
pub(super) struct Cancelled {
    pub(super) effects: HashMap<TaskId, CancelEffect>,
    /// New records of tasks that were pending, if their rows can be read.
    pub(super) records: HashMap<TaskId, Box<TaskRecord>>,
}

impl Cancelled {
    pub(super) fn effect(&self, id: TaskId) -> CancelEffect {
        self.effects.get(&id).copied().unwrap_or(CancelEffect::Unknown)
    }

    /// Whether any of the tasks was pending.
    pub(super) fn was_pending(&self) -> bool {
        self.effects.values().any(|effect| matches!(effect, CancelEffect::Cancelled { .. }))
    }
}

/// Result of an erasure.
pub(super) struct Erased {
    /// Whether there may be more old idempotency keys.
    pub(super) more_keys: bool,
    /// Statuses of the erased tasks.
    pub(super) statuses: Vec<TaskStatus>,
}
