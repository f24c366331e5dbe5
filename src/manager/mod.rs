//! The [`TaskManager`]: takes submissions in, runs what is claimed, answers who asks.
//!
//! It knows tasks only as what the registry makes, and hears of every committed change from the
//! store's writer: counts, live tasks and those who wait all follow from that one stream.

mod admission;
mod cancel;
mod conclusion;
mod due;
mod events;
mod janitor;
mod keys;
mod listener;
mod live;
mod metrics;
mod outcome;
mod output;
mod polls;
mod progress;
mod retry;
mod runner;
mod runtime;
mod start;
mod stats;
mod submission;
mod waiters;
mod waiting;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::store::{Cursor, Replay, Store, Submitted, TaskPage, TaskRecord};
pub(crate) use crate::store::{Idempotency, ListFilter, MAX_PAGE_BYTES, StoreError};
use crate::task::{
    CpuSlots, Fault, Files, MemoryBudget, Task, TaskId, TaskInfo, TaskStatus, TaskType,
};
use crate::tasks::TaskRegistry;
use admission::{Admission, Refusal};
pub(crate) use conclusion::MAX_RESULT_BYTES;
use due::Due;
pub(crate) use events::{Event, EventId, EventKind, Interest, Subscription, WatchError};
use events::{Events, Stamp};
use keys::KeyTurns;
use live::LiveTasks;
pub(crate) use live::Rendered;
use metrics::Metrics;
pub(crate) use outcome::{
    CancelCounts, CancelOutcome, Load, OutputError, Page, RetryAllError, RetryCounts, RetryError,
    SubmitError,
};
use polls::SlowThreads;
use runtime::TaskRuntime;
pub use start::{ManagerOptions, StartError};
use stats::History;
pub(crate) use stats::Minute;
pub(crate) use submission::{MAX_TAGS, Submission};
use waiters::Waiters;

/// Orchestrates tasks; contains no task's logic. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TaskManager {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    registry: TaskRegistry,
    files: Arc<Files>,
    cpu_slots: CpuSlots,
    slow_threads: SlowThreads,
    memory: MemoryBudget,
    runtime: TaskRuntime,
    admission: Admission,
    max_running: usize,
    limits: HashMap<TaskType, usize>,
    keys: Arc<KeyTurns>,
    live: LiveTasks,
    waiters: Arc<Waiters>,
    events: Events,
    metrics: Metrics,
    history: History,
    due: mpsc::UnboundedSender<Due>,
    /// No more submissions.
    draining: CancellationToken,
    /// Running tasks go back to pending.
    interrupted: AtomicBool,
}

impl TaskManager {
    /// The task types and their code.
    pub(crate) fn registry(&self) -> &TaskRegistry {
        &self.shared.registry
    }

    /// The folders that tasks may use.
    pub(crate) fn files(&self) -> &Files {
        &self.shared.files
    }

    /// Everything that is wrong with a submission, storing nothing.
    pub(crate) async fn check(&self, submission: Submission) -> Result<(), Vec<Fault>> {
        submission.check(&self.shared).await.map(drop)
    }

    /// Stores a new task. When this returns its id, the task survives a power cut.
    pub(crate) async fn submit(&self, submission: Submission) -> Result<TaskId, SubmitError> {
        let shared = &self.shared;
        let Some(idempotency) = submission.idempotency.clone() else {
            return self.admit(submission).await;
        };
        let _turn = shared.keys.take(&idempotency.key).await;
        shared.store.check_files()?;
        match shared.store.replay(&idempotency.key).await? {
            Some(replay) => replayed(&idempotency, replay),
            None => self.admit(submission).await,
        }
    }

    async fn admit(&self, submission: Submission) -> Result<TaskId, SubmitError> {
        let shared = &self.shared;
        let task = submission.check(shared).await.map_err(SubmitError::Invalid)?;
        if shared.draining.is_cancelled() {
            return Err(SubmitError::Draining);
        }
        let (id, idempotency) = (task.id, task.idempotency.clone());
        // A place in the queue first: from the count to the queue there must be no waiting, in which
        // the client could go away and leave the count behind.
        let place = shared.store.place().await?;
        match shared.admission.reserve(id) {
            Ok(()) => {}
            Err(Refusal::QueueFull(limit)) => return Err(SubmitError::QueueFull(limit)),
            Err(Refusal::Busy(latest)) => {
                let busy = Box::pin(self.occupant()).await?;
                return Err(SubmitError::Busy(busy.or(latest)));
            }
        }
        match (place.submit(task).await?, idempotency) {
            (Submitted::Stored { .. }, _) => Ok(id),
            (Submitted::OutputInUse(owner), _) => Err(SubmitError::OutputInUse(owner)),
            (Submitted::RetriedBefore, _) => Err(SubmitError::RetriedBefore),
            (Submitted::Replayed(replay), Some(asked)) => replayed(&asked, replay),
            (Submitted::Replayed(_), None) => unreachable!("nothing is replayed without a key"),
        }
    }

    /// What keeps an exclusive server busy: the task that began to run last, else the pending one that was
    /// submitted last and can run.
    async fn occupant(&self) -> Result<Option<TaskId>, StoreError> {
        if let Some(live) = self.shared.live.newest() {
            return Ok(Some(live.claimed.task_id));
        }
        let types: Vec<_> = TaskType::names().collect();
        self.shared.store.newest_runnable(&types).await
    }

    /// Checks what a submission checks, and what is else only met when the task runs. Returns the
    /// parameters with the defaults filled in.
    pub(crate) async fn dry_run(
        &self,
        submission: Submission,
    ) -> Result<Box<RawValue>, Vec<Fault>> {
        submission.try_out(&self.shared).await
    }

    /// A task as it is now.
    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<Rendered>, StoreError> {
        if let Some(live) = self.shared.live.get(id) {
            return Ok(Some(live.render()));
        }
        let Some(mut record) = self.shared.store.get(id).await? else { return Ok(None) };
        self.shared.explain(std::slice::from_mut(&mut record)).await?;
        Ok(Some(Rendered::new(&record.info)))
    }

    /// A task when it has ended, or as it is when the time is over. `hold` is called before the request
    /// has to wait, and may refuse that.
    pub(crate) async fn wait<E: From<StoreError>>(
        &self,
        id: TaskId,
        limit: Duration,
        hold: impl FnOnce() -> Result<(), E>,
    ) -> Result<Option<Rendered>, E> {
        let waiter = self.shared.waiters.register(id);
        let task = self.get(id).await?;
        if limit.is_zero() || task.as_ref().is_none_or(|task| task.is_final) {
            return Ok(task);
        }
        hold()?;
        tokio::select! {
            () = waiter.ended() => {}
            () = tokio::time::sleep(limit) => {}
            () = self.shared.draining.cancelled() => {}
        }
        Ok(self.get(id).await?)
    }

    /// A task as it is now, and where that stands among all its states.
    async fn state(&self, id: TaskId) -> Result<Option<(Stamp, TaskInfo)>, StoreError> {
        if let Some(live) = self.shared.live.get(id) {
            return Ok(Some(live.state()));
        }
        let Some(mut record) = self.shared.store.get(id).await? else { return Ok(None) };
        self.shared.explain(std::slice::from_mut(&mut record)).await?;
        Ok(Some((Stamp::of(record.epoch, record.info.status), record.info)))
    }

    /// Tasks, newest first.
    pub(crate) async fn list(&self, filter: &ListFilter) -> Result<Page, StoreError> {
        let (states, next) = self.states(filter).await?;
        Ok(Page { tasks: states.into_iter().map(|(_, info)| info).collect(), next })
    }

    /// Tasks, newest first, and where the next page begins if there is one.
    async fn states(
        &self,
        filter: &ListFilter,
    ) -> Result<(Vec<(Stamp, TaskInfo)>, Option<Cursor>), StoreError> {
        let TaskPage { mut records, next } = self.shared.store.list(filter).await?;
        self.shared.explain(&mut records).await?;
        let states = records.into_iter().map(|record| self.overlay(record)).collect();
        Ok((states, next))
    }

    /// The task that began to run last, else the pending one that was submitted last.
    pub(crate) async fn current(&self) -> Result<Option<TaskInfo>, StoreError> {
        if let Some(live) = self.shared.live.newest() {
            return Ok(Some(live.info()));
        }
        let Some(mut record) = self.shared.store.newest_pending().await? else { return Ok(None) };
        self.shared.explain(std::slice::from_mut(&mut record)).await?;
        Ok(Some(record.info))
    }

    /// How busy the server is.
    pub(crate) fn load(&self) -> Load {
        Load {
            running: self.shared.live.len(),
            pending: self.shared.admission.pending(),
            abandoned_threads: self.shared.cpu_slots.abandoned(),
            cpu_slots_exhausted: self.shared.cpu_slots.exhausted(),
        }
    }

    /// Whether what is accepted can be stored.
    pub(crate) fn check_files(&self) -> Result<(), StoreError> {
        self.shared.store.check_files()
    }

    /// Whether the server has begun to shut down.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.is_cancelled()
    }

    /// Takes no more submissions, ends every wait and claims nothing more. Gives running tasks
    /// `grace` to end and sends the rest back to pending for the next start.
    pub async fn drain(&self, grace: Duration) {
        let shared = &self.shared;
        shared.draining.cancel();
        shared.store.stop_claiming().await;
        if tokio::time::timeout(grace, shared.live.emptied()).await.is_err() {
            tracing::info!(tasks = shared.live.len(), "the grace is over, running tasks go back");
        }
        shared.interrupted.store(true, Ordering::Relaxed);
        runner::interrupt_all(shared);
        shared.live.emptied().await;
        shared.events.close();
    }

    /// Closes the database.
    pub async fn close(&self) {
        self.shared.store.close().await;
    }

    /// The latest progress of a task that the database knows as running.
    fn overlay(&self, record: TaskRecord) -> (Stamp, TaskInfo) {
        if record.info.status == TaskStatus::Running
            && let Some(live) = self.shared.live.get(record.info.task_id)
            && live.epoch == record.epoch
        {
            return live.state();
        }
        (Stamp::of(record.epoch, record.info.status), record.info)
    }
}

/// The answer to a submission whose key was used before.
fn replayed(asked: &Idempotency, replay: Replay) -> Result<TaskId, SubmitError> {
    if asked.body_hash == replay.body_hash {
        Ok(replay.task_id)
    } else {
        Err(SubmitError::KeyReused)
    }
}

impl Shared {
    /// The task that a record stands for, or why this server cannot make it.
    fn parse(&self, info: &TaskInfo) -> Result<Box<dyn Task>, String> {
        let task_type = TaskType::from_name(&info.task_type)
            .ok_or_else(|| format!("this server does not know task type `{}`", info.task_type))?;
        let parameters: Value = serde_json::from_str(info.parameters.get())
            .map_err(|error| format!("the parameters are no JSON: {error}"))?;
        // The checks are a contributor's code, and this runs where a panic would be everyone's.
        let parse = || self.registry.get(task_type).parse(&parameters);
        let parsed = catch_unwind(AssertUnwindSafe(parse))
            .map_err(|_| "the check of its parameters panicked".to_owned())?;
        parsed.map_err(|faults| {
            let faults: Vec<_> = faults.iter().map(|fault| fault.msg.as_str()).collect();
            format!("this server does not know these parameters: {}", faults.join("; "))
        })
    }
}
