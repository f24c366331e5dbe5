//! Changes: everything that the store can be asked to write.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::counts::Reservation;
use super::error::StoreError;
use crate::task::{Task, TaskId, TaskStatus, Timestamp};

/// Upper limit of the changes that wait for the writer; further ones wait for a queue permit.
const QUEUE_LENGTH: usize = 4096;

/// Where the result of a change is waited for. Sent after the observer has seen the commit.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// A change and its answer.
pub(super) enum Change {
    Submit(Box<NewTask>, Answer<Submitted>),
    Progress(StoredProgress, Answer<()>),
    End(Arc<AttemptEnd>, Answer<()>),
    Promote(Vec<i64>, Answer<()>),
    Cancel(Cancellation, Answer<CancelEffect>),
    Erase(EraseStep, Answer<bool>),
    Upkeep(UpkeepStep, Answer<()>),
    Close(Answer<()>),
}

impl Change {
    /// Answers that nothing was changed.
    pub(super) fn refuse(self, error: StoreError) {
        // Whoever has stopped waiting needs no answer, here and after a commit.
        match self {
            Self::Submit(_, answer) => drop(answer.send(Err(error))),
            Self::Cancel(_, answer) => drop(answer.send(Err(error))),
            Self::Erase(_, answer) => drop(answer.send(Err(error))),
            Self::Progress(_, answer)
            | Self::End(_, answer)
            | Self::Promote(_, answer)
            | Self::Upkeep(_, answer)
            | Self::Close(answer) => drop(answer.send(Err(error))),
        }
    }
}

/// The queue of the writer. Cheap to clone.
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

    /// A queue that does not keep the writer from ending.
    pub(super) fn downgrade(&self) -> WeakQueue {
        WeakQueue(self.0.downgrade())
    }
}

/// A [`Queue`] for as long as others hold it.
pub(super) struct WeakQueue(mpsc::WeakSender<Change>);

impl WeakQueue {
    pub(super) fn upgrade(&self) -> Option<Queue> {
        self.0.upgrade().map(Queue)
    }
}

/// Permission to put one change into the queue.
pub(crate) struct QueuePermit<'q>(mpsc::Permit<'q, Change>);

impl QueuePermit<'_> {
    /// Stores a new task. It is queued by the first poll, and then stored even if the caller goes
    /// away.
    pub(crate) async fn submit(self, task: Box<NewTask>) -> Result<Submitted, StoreError> {
        self.change(|answer| Change::Submit(task, answer)).await
    }

    async fn change<T>(self, change: impl FnOnce(Answer<T>) -> Change) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(change(answer));
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

/// A task as it is submitted.
pub(crate) struct NewTask {
    pub(crate) id: TaskId,
    pub(crate) task_type: &'static str,
    pub(crate) parameters: Box<RawValue>,
    pub(crate) input_file_path: Option<String>,
    pub(crate) output_file_path: Option<String>,
    /// The output in its one spelling. No two unfinished tasks share one.
    pub(crate) output_key: Option<String>,
    pub(crate) priority: i32,
    pub(crate) timeout_seconds: Option<f64>,
    pub(crate) max_attempts: u32,
    /// An object of strings.
    pub(crate) tags: Box<RawValue>,
    /// Not before this time; `None` for at once.
    pub(crate) run_at: Option<Timestamp>,
    pub(crate) retry: Option<Retry>,
    pub(crate) idempotency: Option<Idempotency>,
    pub(crate) created_at: Timestamp,
    /// Runs if the task is claimed by the commit that stores it; later the task is made from its row.
    pub(crate) code: Box<dyn Task>,
    /// Held until the task is counted or refused.
    pub(crate) reservation: Option<Reservation>,
}

/// Link from a new task to the finished one that it repeats.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    /// The finished task.
    pub(crate) of: TaskId,
    /// Whether to refuse the new task if the finished one has a retry.
    pub(crate) only_first: bool,
}

/// Identity of a submission that may be sent twice.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    /// The client's name for the submission.
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
    /// The task to be repeated for the first time has a retry.
    RetriedBefore,
    /// The idempotency key was stored before.
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
    /// Pause before the next attempt. A length and not a time, because the clock may jump on the way
    /// to the commit.
    pub(crate) pause: Option<Duration>,
    /// Whether the attempt does not count against `max_attempts`.
    pub(crate) attempt_given_back: bool,
    /// Whether this build cannot run the task, which then stays pending until the next start.
    pub(crate) unrunnable: bool,
    /// Time of the request for cancellation; the next status is then `cancelled`.
    pub(crate) cancel_requested_at: Option<Timestamp>,
}

impl AttemptEnd {
    /// An end without a result, after which the task is pending again.
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
    /// is left alone, because it may be publishing its output right now.
    pub(crate) accepted_by_attempt: bool,
}

/// Effect of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelEffect {
    /// It was pending and is now cancelled.
    Cancelled {
        /// Place in the order of submission.
        seq: i64,
    },
    /// It is running, its attempt has promised to stop, and the request is stored.
    Requested,
    /// It is running, and its attempt has promised nothing.
    NotAccepted,
    /// It had ended before.
    AlreadyFinal(TaskStatus),
    /// There is no such task.
    Unknown,
}

/// One step of erasing old tasks and idempotency keys.
#[derive(Debug)]
pub(crate) struct EraseStep {
    /// Finished tasks, by `seq`.
    pub(crate) tasks: Vec<i64>,
    /// Idempotency keys from before this time are erased.
    pub(crate) keys_cutoff: Timestamp,
}

/// Facts about stored tasks that the engine finds in the background and keeps beside them.
#[derive(Debug, Default)]
pub(super) struct UpkeepStep {
    /// Blocks whose submission times are known.
    pub(super) blocks: Vec<BlockTimes>,
    /// All tasks of the blocks before this one have been erased.
    pub(super) first_block: i64,
    /// Whether the index by time of older versions can be dropped.
    pub(super) drop_index: bool,
    /// Pairs of a finished task and its latest retry.
    pub(super) retries: Vec<(TaskId, TaskId)>,
    /// Whether `retried_by` is known of the whole history.
    pub(super) retries_known: bool,
}

/// Submission times within one block of tasks, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockTimes {
    pub(super) block: i64,
    pub(super) earliest: i64,
    pub(super) latest: i64,
}
