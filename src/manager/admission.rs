//! Submissions: checks them, admits them within the limits, and has them stored.

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

/// Limits of the unfinished tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdmissionLimits {
    pub(super) max_pending: usize,
    /// One unfinished task at a time (`--exclusive`).
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
    /// Everything that is wrong with a submission, storing nothing.
    pub(crate) async fn check(&self, submission: Submission) -> Result<(), Vec<Fault>> {
        submission.check(&self.inner.registry, &self.inner.files).await.map(drop)
    }

    /// Checks what a submission checks, and what is else only met when the task runs. Returns the
    /// parameters with the defaults filled in.
    pub(crate) async fn dry_run(
        &self,
        submission: Submission,
    ) -> Result<Box<RawValue>, Vec<Fault>> {
        submission.try_out(&self.inner.registry, &self.inner.files).await
    }

    /// Stores a new task. When this returns its id, the task survives a power cut.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<TaskId, SubmitError> {
        let Some(idempotency) = submission.idempotency.clone() else {
            return self.admit(submission).await;
        };
        let _turn = self.inner.keys.take(&idempotency.key).await;
        self.inner.store.check()?;
        match self.inner.store.replay(&idempotency.key).await? {
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
        match inner.store.counts().reserve(id, |unfinished| inner.admission.check(unfinished)) {
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
            (Err(Refused::RetriedBefore), _) => Err(SubmitError::RetriedBefore),
            (Err(Refused::Replayed(replay)), Some(asked)) => replayed(&asked, replay),
            (Err(Refused::Replayed(_)), None) => unreachable!("no key, so nothing is replayed"),
        }
    }

    /// The task that keeps an exclusive server busy: the one that began to run last, else the pending one
    /// that was submitted last and can run.
    async fn occupant(&self) -> Result<Option<TaskId>, StoreError> {
        match self.inner.attempts.newest() {
            Some(attempt) => Ok(Some(attempt.claimed.task_id)),
            None => self.inner.store.newest_runnable().await,
        }
    }
}

/// The answer to a submission whose key was used before.
fn replayed(asked: &Idempotency, replay: Replay) -> Result<TaskId, SubmitError> {
    match asked.body_hash == replay.body_hash {
        true => Ok(replay.task_id),
        false => Err(SubmitError::KeyReused),
    }
}

/// The idempotency keys of the submissions under way. Submissions with the same key take turns, so that
/// the second finds what the first has stored.
#[derive(Debug, Default)]
pub(super) struct KeyTurns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl KeyTurns {
    /// Waits until no other submission with this key is under way.
    async fn take(self: &Arc<Self>, key: &str) -> Turn {
        let lock = Arc::clone(self.0.lock().entry(key.to_owned()).or_default());
        // Made before the wait, so that a client that gives up waiting cleans up as well.
        let mut turn = Turn {
            turns: Arc::clone(self),
            key: key.to_owned(),
            lock: Some(Arc::clone(&lock)),
            guard: None,
        };
        turn.guard = Some(lock.lock_owned().await);
        turn
    }
}

/// One submission's turn, until it is dropped.
#[derive(Debug)]
struct Turn {
    turns: Arc<KeyTurns>,
    key: String,
    lock: Option<Arc<tokio::sync::Mutex<()>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.0.lock();
        (self.guard, self.lock) = (None, None);
        // Those who wait hold the lock too.
        if turns.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            turns.remove(&self.key);
        }
    }
}
