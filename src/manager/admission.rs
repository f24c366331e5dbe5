//! Admission: checks submissions, reserves within the limits, and has them stored.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::sync::OwnedMutexGuard;

use super::TaskManager;
use super::errors::SubmitError;
use super::submission::Submission;
use crate::store::{Idempotency, Refused, Replay, StoreError, Unfinished};
use crate::task::{Fault, TaskId};

/// Limits on unfinished tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdmissionLimits {
    pub(super) max_pending: usize,
    /// Allow one unfinished task at a time (`--exclusive`).
    pub(super) exclusive: bool,
}

impl AdmissionLimits {
    fn check(self, unfinished: Unfinished) -> Result<(), SubmitError> {
        let Unfinished { pending, running, latest } = unfinished;
        if self.exclusive && pending + running > 0 {
            return Err(SubmitError::Busy(latest));
        }
        if pending >= self.max_pending {
            return Err(SubmitError::QueueFull(self.max_pending));
        }
        Ok(())
    }
}

impl TaskManager {
    /// Returns all faults of a submission, storing nothing.
    pub(crate) async fn check(&self, submission: Submission) -> Result<(), Vec<Fault>> {
        submission.check(&self.inner.registry, &self.inner.files).await.map(drop)
    }

    /// Checks a submission, and also conditions that otherwise fail only when the task runs. Returns the
    /// parameters with defaults.
    pub(crate) async fn dry_run(
        &self,
        submission: Submission,
    ) -> Result<Box<RawValue>, Vec<Fault>> {
        submission.try_out(&self.inner.registry, &self.inner.files).await
    }

    /// Stores a new task. Once this returns its id, the task survives a power cut.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<TaskId, SubmitError> {
        let Some(idempotency) = submission.idempotency.clone() else {
            return self.admit(submission).await;
        };
        let _turn = self.inner.keys.take(&idempotency.key).await;
        self.inner.store.reads.check()?;
        match self.inner.store.reads.replay(&idempotency.key).await? {
            Some(replay) => replayed(&idempotency, replay),
            None => self.admit(submission).await,
        }
    }

    async fn admit(&self, submission: Submission) -> Result<TaskId, SubmitError> {
        let inner = &self.inner;
        let task = submission.check(&inner.registry, &inner.files).await;
        let mut task = task.map_err(SubmitError::Invalid)?;
        if self.is_draining() {
            return Err(SubmitError::Draining);
        }
        let (id, idempotency) = (task.id, task.idempotency.clone());
        let permit = inner.store.queue_permit().await?;
        match inner.store.reads.counts().reserve(id, |unfinished| inner.admission.check(unfinished))
        {
            Ok(reservation) => task.reservation = Some(reservation),
            Err(SubmitError::Busy(latest)) => {
                let busy = Box::pin(self.occupant()).await?;
                return Err(SubmitError::Busy(busy.or(latest)));
            }
            Err(refused) => return Err(refused),
        }
        match (permit.submit(task).await?, idempotency) {
            (Ok(()), _) => Ok(id),
            (Err(Refused::OutputInUse(owner)), _) => Err(SubmitError::OutputInUse(owner)),
            (Err(Refused::OutputOverlaps(owner)), _) => Err(SubmitError::OutputOverlaps(owner)),
            (Err(Refused::RetriedBefore), _) => Err(SubmitError::RetriedBefore),
            (Err(Refused::Replayed(replay)), Some(asked)) => replayed(&asked, replay),
            (Err(Refused::Replayed(_)), None) => unreachable!("no key, so nothing is replayed"),
        }
    }

    /// The task that keeps an exclusive server busy: the one that started last, else the newest pending
    /// one that can run.
    async fn occupant(&self) -> Result<Option<TaskId>, StoreError> {
        match self.inner.attempts.newest() {
            Some(attempt) => Ok(Some(attempt.claimed.task_id)),
            None => self.inner.store.reads.newest_runnable().await,
        }
    }
}

/// Response to a submission whose idempotency key is known.
fn replayed(asked: &Idempotency, replay: Replay) -> Result<TaskId, SubmitError> {
    (asked.body_hash == replay.body_hash).then_some(replay.task_id).ok_or(SubmitError::KeyReused)
}

/// Idempotency keys of current submissions, each with a lock. Submissions with the same key take turns,
/// so that the second one finds the task that the first one stored. The last turn removes the key.
#[derive(Debug, Default)]
pub(super) struct KeyTurns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl KeyTurns {
    /// Waits until no other submission holds this key.
    async fn take(self: &Arc<Self>, key: &str) -> Turn {
        let lock = Arc::clone(self.0.lock().entry(key.to_owned()).or_default());
        // Created before the wait, so that a client that disconnects meanwhile cleans up as well.
        let mut turn = Turn { turns: Arc::clone(self), key: key.to_owned(), guard: None };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

/// Turn of one submission, until it is dropped.
#[derive(Debug)]
struct Turn {
    turns: Arc<KeyTurns>,
    key: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        self.guard = None;
        // Waiting submissions hold the lock too.
        if turns.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            turns.remove(&self.key);
        }
    }
}
