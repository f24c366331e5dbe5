//! What a database engine has to provide: one writing half, owned by the writer, and one reading half
//! that everyone shares. The set of engines is closed; [`Engine`] and [`Reads`] have a variant for
//! each.

use std::collections::HashMap;

use super::change::{CancelEffect, Change, Refused};
use super::error::StoreError;
use super::record::TaskRecord;
use super::slots::FreeSlots;
use super::sqlite;
use crate::task::{TaskId, TaskStatus, Timestamp};

/// The writing half.
pub(super) enum Engine {
    Sqlite(Box<sqlite::WriteHalf>),
}

impl Engine {
    /// Commits changes as one transaction, and claims pending tasks as far as there are free slots:
    /// those that wait first, then the new ones. On an error nothing was changed.
    ///
    /// Lost guards and conflicts are results. What one change leaves the next one meets in this
    /// order: progress, ends, promotions, cancellations, erasures, upkeep, claims, submissions.
    pub(super) async fn commit(
        &mut self,
        batch: &[Change],
        free: FreeSlots,
    ) -> Result<Results, StoreError> {
        let Self::Sqlite(half) = self;
        half.commit(batch, free).await
    }

    /// Closes the database.
    pub(super) async fn close(self) -> Result<(), StoreError> {
        let Self::Sqlite(half) = self;
        half.close().await
    }
}

/// The reading half. Its verbs are those of [`Store`](super::Store) that read.
#[derive(Clone, Debug)]
pub(super) enum Reads {
    Sqlite(sqlite::ReadHalf),
}

/// Results of a committed transaction.
pub(super) struct Results {
    /// Time of the transaction.
    pub(super) at: Timestamp,
    /// In the order of the batch; a stored task may be running already.
    pub(super) submitted: Vec<Result<Box<TaskRecord>, Refused>>,
    /// Ends, by `seq` and epoch, that were not stored because their task belongs to another attempt.
    pub(super) disowned: Vec<(i64, i64)>,
    pub(super) cancelled: Cancelled,
    /// In the order of the batch.
    pub(super) erased: Vec<Erased>,
    /// Pending tasks that are running now.
    pub(super) claimed: Vec<TaskRecord>,
    /// Pending tasks that were set aside because their rows cannot be read, by `seq`.
    pub(super) unrunnable: Vec<i64>,
    /// Whether the next commit may claim more without another change.
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
            unrunnable: Vec::new(),
            claims_left: false,
        }
    }
}

/// Effects of cancellations.
#[derive(Default)]
pub(super) struct Cancelled {
    pub(super) effects: HashMap<TaskId, CancelEffect>,
    /// Tasks that were pending, as they are now, if their rows can be read.
    pub(super) records: HashMap<TaskId, Box<TaskRecord>>,
}

impl Cancelled {
    pub(super) fn effect(&self, id: TaskId) -> CancelEffect {
        self.effects.get(&id).copied().unwrap_or(CancelEffect::Unknown)
    }

    /// Whether one of the tasks was pending.
    pub(super) fn was_pending(&self) -> bool {
        self.effects.values().any(|effect| matches!(effect, CancelEffect::Cancelled { .. }))
    }
}

/// Result of an erasure.
pub(super) struct Erased {
    /// Whether more idempotency keys may be old.
    pub(super) more_keys: bool,
    /// Statuses of the erased tasks.
    pub(super) statuses: Vec<TaskStatus>,
}
