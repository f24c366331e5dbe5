//! Changes: all requests to the writer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::counts::Reservation;
use super::error::StoreError;
use super::record::LogTail;
use super::slots::Limits;
use crate::task::{Task, TaskId, TaskStatus, Timestamp};

/// Upper limit of queued changes; further ones wait for a queue permit.
const QUEUE_LENGTH: usize = 4096;

/// Channel for the result of a change. Sent after the observer has seen the commit.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Called with the result of an end, after the observer has seen the commit. A channel would wake a task
/// for each attempt, most of them for nothing.
pub(super) type EndAnswer = Box<dyn FnOnce(Result<(), StoreError>) + Send + Sync>;

/// A change and its answer.
pub(super) enum Change {
    Submit(Box<NewTask>, Answer<Submitted>),
    Progress(StoredProgress, Answer<()>),
    End(Arc<AttemptEnd>, EndAnswer),
    Promote(Vec<i64>, Answer<()>),
    Cancel(Cancellation, Answer<CancelEffect>),
    Erase(EraseStep, Answer<bool>),
    Upkeep(UpkeepStep, Answer<()>),
    Log(LogTail, Answer<()>),
    Types(NewTypes, Answer<()>),
    Close(Answer<()>),
}

impl Change {
    /// Reports that nothing was changed.
    pub(super) fn refuse(self, error: StoreError) {
        // The caller may have stopped waiting.
        match self {
            Self::Submit(_, answer) => drop(answer.send(Err(error))),
            Self::Cancel(_, answer) => drop(answer.send(Err(error))),
            Self::Erase(_, answer) => drop(answer.send(Err(error))),
            Self::End(_, answer) => answer(Err(error)),
            Self::Progress(_, answer)
            | Self::Promote(_, answer)
            | Self::Upkeep(_, answer)
            | Self::Log(_, answer)
            | Self::Types(_, answer)
            | Self::Close(answer) => drop(answer.send(Err(error))),
        }
    }
}

/// The writer's queue: bounded, filled by all callers, drained by the writer alone. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Queue(mpsc::Sender<Change>);

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Change>) {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        (Self(sender), receiver)
    }

    /// Queues a change and waits for its answer. Once queued, the change is made even if the caller
    /// goes away.
    pub(super) async fn change<T>(
        &self,
        change: impl FnOnce(Answer<T>) -> Change,
    ) -> Result<T, StoreError> {
        self.permit().await?.change(change).await
    }

    pub(super) async fn permit(&self) -> Result<QueuePermit<'_>, StoreError> {
        self.0.reserve().await.map(QueuePermit).map_err(|_| StoreError::Closed)
    }

    /// Returns the queue on demand, for as long as others hold it, without keeping the writer alive.
    pub(super) fn downgrade(&self) -> impl Fn() -> Option<Self> + use<> {
        let queue = self.0.downgrade();
        move || queue.upgrade().map(Self)
    }
}

/// Permission to put one change into the queue.
pub(crate) struct QueuePermit<'q>(mpsc::Permit<'q, Change>);

impl QueuePermit<'_> {
    /// Stores a new task. The first poll queues it; from then on it is stored even if the caller goes
    /// away.
    pub(crate) async fn submit(self, task: Box<NewTask>) -> Result<Submitted, StoreError> {
        self.change(|answer| Change::Submit(task, answer)).await
    }

    pub(super) fn end(self, end: Arc<AttemptEnd>, answer: EndAnswer) {
        self.0.send(Change::End(end, answer));
    }

    async fn change<T>(self, change: impl FnOnce(Answer<T>) -> Change) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(change(answer));
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// A checked submission.
pub(crate) struct NewTask {
    pub(crate) id: TaskId,
    pub(crate) task_type: &'static str,
    pub(crate) parameters: Box<RawValue>,
    pub(crate) input_file_path: Option<String>,
    pub(crate) output_file_path: Option<String>,
    /// Canonical output path, that of a folder with a slash at the end. No two unfinished tasks share one,
    /// and none is inside another.
    pub(crate) output_key: Option<String>,
    pub(crate) priority: i32,
    pub(crate) timeout_seconds: Option<f64>,
    pub(crate) max_attempts: u32,
    /// JSON object of strings.
    pub(crate) tags: Box<RawValue>,
    /// Earliest start; `None` for immediately.
    pub(crate) run_at: Option<Timestamp>,
    pub(crate) retry: Option<Retry>,
    pub(crate) idempotency: Option<Idempotency>,
    pub(crate) created_at: Timestamp,
    /// Used if the commit that stores the task also claims it; a later claim makes it from its row.
    pub(crate) code: Box<dyn Task>,
    /// Held until the task is stored or refused.
    pub(crate) reservation: Option<Reservation>,
}

/// Link from a new task to the finished task that it repeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    /// The finished task.
    pub(crate) of: TaskId,
    /// Whether to refuse the new task if the finished one already has a retry.
    pub(crate) only_first: bool,
}

/// Identity of a submission, for detecting duplicates.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    /// Chosen by the client.
    pub(crate) key: String,
    /// SHA-256 of the body, in hexadecimal.
    pub(crate) body_hash: String,
}

/// Result of a submission.
pub(crate) type Submitted = Result<(), Refused>;

/// Why a new task was not stored.
#[derive(Debug)]
pub(crate) enum Refused {
    /// This unfinished task has the same output.
    OutputInUse(TaskId),
    /// This unfinished task has an output that contains this one, or is inside it.
    OutputOverlaps(TaskId),
    /// The finished task already has a retry, and only a first one was requested.
    RetriedBefore,
    /// The idempotency key is already stored.
    Replayed(Replay),
}

/// The first submission with an idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) task_id: TaskId,
    pub(crate) body_hash: String,
}

/// Progress of a running attempt.
#[derive(Debug)]
pub(crate) struct StoredProgress {
    pub(crate) seq: i64,
    pub(crate) epoch: i64,
    pub(crate) percent: f64,
    pub(crate) message: String,
    pub(crate) updated_at: Timestamp,
}

/// End of one attempt.
#[derive(Debug)]
pub(crate) struct AttemptEnd {
    pub(crate) seq: i64,
    pub(crate) epoch: i64,
    pub(crate) id: TaskId,
    /// The next status: a final one, or `pending` for another attempt.
    pub(crate) status: TaskStatus,
    pub(crate) progress: f64,
    pub(crate) message: String,
    pub(crate) result: Option<Box<RawValue>>,
    pub(crate) error: Option<String>,
    /// Pause before the next attempt. A duration, not a time: the clock may jump before the commit.
    pub(crate) pause: Option<Duration>,
    /// Whether the attempt does not count against `max_attempts`.
    pub(crate) attempt_given_back: bool,
    /// Whether this build cannot run the task, which stays pending until the next start.
    pub(crate) unrunnable: bool,
    /// Time of the cancellation request; if set, the next status is `cancelled`.
    pub(crate) cancel_requested_at: Option<Timestamp>,
}

impl AttemptEnd {
    /// Returns the task to pending, without a result.
    pub(crate) fn pending(seq: i64, epoch: i64, id: TaskId) -> Self {
        Self {
            seq,
            epoch,
            id,
            status: TaskStatus::Pending,
            progress: 0.0,
            message: String::new(),
            result: None,
            error: None,
            pause: None,
            attempt_given_back: false,
            unrunnable: false,
            cancel_requested_at: None,
        }
    }
}

/// Request to cancel a task.
#[derive(Debug)]
pub(crate) struct Cancellation {
    pub(crate) id: TaskId,
    pub(crate) at: Timestamp,
    /// Whether the running attempt has promised not to complete. Without that promise a running task
    /// is left alone: it may be publishing its output.
    pub(crate) accepted_by_attempt: bool,
}

/// Effect of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelEffect {
    /// Was pending, is now cancelled.
    Cancelled { seq: i64 },
    /// Is running, its attempt has promised to stop, and the request is stored.
    Requested,
    /// Is running, and its attempt has not promised to stop.
    NotAccepted,
    /// Had already ended.
    AlreadyFinal(TaskStatus),
    /// Does not exist.
    Unknown,
}

/// One step of erasing old tasks and idempotency keys.
#[derive(Debug)]
pub(crate) struct EraseStep {
    /// Finished tasks, by `seq`.
    pub(crate) tasks: Vec<i64>,
    /// Erases idempotency keys older than this.
    pub(crate) keys_cutoff: Timestamp,
}

/// New limits, after task types were added, changed or removed.
#[derive(Debug)]
pub(crate) struct NewTypes {
    pub(crate) limits: Limits,
    /// Types whose unrunnable tasks may be runnable now.
    pub(crate) changed: Vec<&'static str>,
}

/// Facts about stored tasks that the engine gathers in the background and stores beside them.
#[derive(Debug, Default)]
pub(super) struct UpkeepStep {
    /// Submission times of completed blocks.
    pub(super) blocks: Vec<BlockTimes>,
    /// All tasks in earlier blocks have been erased.
    pub(super) first_block: i64,
    /// Whether to drop the index by time that older versions used.
    pub(super) drop_index: bool,
    /// Finished tasks, each with its latest retry.
    pub(super) retries: Vec<(TaskId, TaskId)>,
    /// Whether `retried_by` is now known for the whole history.
    pub(super) retries_known: bool,
}

/// Range of submission times within one block of tasks, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockTimes {
    pub(super) block: i64,
    pub(super) earliest: i64,
    pub(super) latest: i64,
}
