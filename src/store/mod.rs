//! The database: every state change goes through one writer that commits what is waiting as one
//! transaction; reads have connections of their own.
//!
//! Nothing here knows what a task does. The one who opens the store hands the writer an
//! `Observer`, which hears of every committed change before the client does.

mod backup;
mod batch;
mod claims;
mod counts;
mod files;
mod filter;
mod idempotency;
mod import;
mod list;
#[cfg(test)]
mod model_tests;
mod news;
mod open;
mod places;
mod positions;
mod queries;
mod readers;
mod ready;
mod record;
mod recovery;
mod retention;
mod retries;
mod rows;
mod runnable;
mod submissions;
mod times;
mod transaction;
mod transitions;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

pub(crate) use backup::{BackupError, backup};
use batch::Change;
pub(crate) use counts::Counts;
use files::DatabaseFiles;
pub(crate) use filter::{Cursor, ListFilter, TaskPage};
pub(crate) use idempotency::KEY_LIFETIME;
pub(crate) use list::MAX_PAGE_BYTES;
pub(crate) use news::{Committed, Observer};
pub use open::OpenError;
pub(crate) use open::state_files;
pub(crate) use open::{Opened, open, real_path};
pub(crate) use places::Limits;
pub(crate) use positions::MAX_POSITION;
use positions::PositionCache;
use queries::Lookup;
use readers::Readers;
pub(crate) use record::TaskRecord;
pub(crate) use retention::{ERASE_STEP, Stretch};
use retries::RetriesStep;
pub(crate) use retries::{Retry, find_retries};
pub(crate) use times::keep_times;
use times::{Times, TimesStep};
pub(crate) use transitions::CANCELLED_MESSAGE;
pub(crate) use writer::Writer;

use crate::task::{Task, TaskId, TaskStatus, Timestamp};

/// How many changes may wait for the writer before those who bring more wait too.
const QUEUE_LENGTH: usize = 4096;

/// The handle through which everyone reads and changes tasks.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    queue: mpsc::Sender<Change>,
    readers: Readers,
    lookups: mpsc::UnboundedSender<Lookup>,
    claiming: Arc<AtomicBool>,
    counts: Arc<Counts>,
    times: Arc<Times>,
    positions: Arc<PositionCache>,
    /// Whether `retried_by` of all tasks is known.
    retries_known: Arc<AtomicBool>,
    /// Beyond the `seq` of all stored tasks.
    next_seq: Arc<AtomicI64>,
    /// Names of task types: the known ones, and those of stored tasks.
    types: Arc<[String]>,
    /// The write-ahead log.
    log: PathBuf,
    files: Arc<DatabaseFiles>,
}

/// A task as it is submitted.
pub(crate) struct NewTask {
    pub(crate) id: TaskId,
    pub(crate) task_type: &'static str,
    pub(crate) parameters: Box<RawValue>,
    pub(crate) input_file_path: Option<String>,
    pub(crate) output_file_path: Option<String>,
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
    /// What runs if it is claimed while the writer has it in memory; later it is made from the row again.
    pub(crate) code: Box<dyn Task>,
}

/// What makes two submissions the same one.
#[derive(Clone, Debug)]
pub(crate) struct Idempotency {
    /// The client's name for the submission.
    pub(crate) key: String,
    /// SHA-256 of the body, in hexadecimal.
    pub(crate) body_hash: String,
}

/// How a submission ended.
#[derive(Debug)]
pub(crate) enum Submitted {
    /// Stored; it survives a power cut.
    Stored {
        /// Its place in the order of submission.
        seq: i64,
        /// Whether it was claimed at once.
        running: bool,
    },
    /// Not stored: this unfinished task has the same output.
    OutputInUse(TaskId),
    /// Not stored: the task that it was to repeat, for the first time, has a retry.
    RetriedBefore,
    /// Not stored: it was stored before, under the same idempotency key.
    Replayed(Replay),
}

/// What an idempotency key stands for.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) task_id: TaskId,
    pub(crate) body_hash: String,
}

/// How one attempt ended.
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
    /// How long the next attempt has to wait, if it may not begin at once. A length and not a time,
    /// because the clock may jump on the way to the commit.
    pub(crate) pause: Option<Duration>,
    /// Whether the attempt counts as one that was never begun.
    pub(crate) attempt_given_back: bool,
    /// Whether the task, pending again, is left alone until the next start: this build cannot run it.
    pub(crate) set_aside: bool,
    /// When cancellation was asked for; the next status is then `cancelled`.
    pub(crate) cancel_requested_at: Option<Timestamp>,
}

/// One step of erasing what is old.
#[derive(Debug)]
pub(crate) struct EraseStep {
    /// Finished tasks, by `seq`.
    pub(crate) tasks: Vec<i64>,
    /// Idempotency keys from before this time are erased.
    pub(crate) keys_cutoff: Timestamp,
}

/// A wish that a task be cancelled.
#[derive(Debug)]
pub(crate) struct Cancellation {
    pub(crate) id: TaskId,
    pub(crate) at: Timestamp,
    /// Whether the runner of a running task has promised not to complete it any more. Without
    /// that the wish touches no running task, because it may be publishing its output right now.
    pub(crate) accepted_by_runner: bool,
}

/// What a cancellation met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelEffect {
    /// It was pending and is now cancelled.
    Cancelled {
        /// Its place in the order of submission.
        seq: i64,
    },
    /// It is running, and its runner will stop it; the wish is stored.
    Requested,
    /// It is running, and its runner has not been asked yet.
    NotAccepted,
    /// It had ended before.
    AlreadyFinal(TaskStatus),
    /// There is no such task.
    Unknown,
}

/// The database refused or failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// There is no room for the change; it was not made.
    #[error("the disk that holds the database is full")]
    DiskFull,
    /// Too many requests wait for a look at the database, or this one took too long.
    #[error("the database is busy with other requests")]
    Overloaded,
    /// After an upgrade it is not known yet which tasks were retried.
    #[error("the history is still being searched for retries")]
    RetriesUnknown,
    /// Nothing more is stored, because SQLite writes to a file that has no name any more.
    #[error("`{0}` was deleted or replaced while the server was using it")]
    FileLost(Arc<str>),
    /// Anything else.
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// The writer has ended.
    #[error("the database is closed")]
    Closed,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        const SQLITE_INTERRUPT: i32 = 9;
        const SQLITE_FULL: i32 = 13;
        match primary_code(&error) {
            _ if matches!(error, sqlx::Error::PoolTimedOut) => Self::Overloaded,
            Some(SQLITE_FULL) => Self::DiskFull,
            Some(SQLITE_INTERRUPT) => Self::Overloaded,
            _ => Self::Database(Arc::new(error)),
        }
    }
}

/// The kind of an error of SQLite. Beyond the lowest byte an extended code tells more.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error().and_then(|error| error.code());
    code.and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff)
}

/// Where the outcome of a change is waited for.
type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

impl Store {
    /// Whether the files of the database are still there; if not, nothing that was accepted counts.
    pub(crate) fn check_files(&self) -> Result<(), StoreError> {
        self.files.check()
    }

    /// Waits for a place in the queue.
    pub(crate) async fn place(&self) -> Result<Place<'_>, StoreError> {
        self.queue.reserve().await.map(Place).map_err(|_| StoreError::Closed)
    }

    /// Cancels a pending task, or notes the wish on a running one.
    pub(crate) async fn cancel(&self, wish: Cancellation) -> Result<CancelEffect, StoreError> {
        self.change(|answer| Change::Cancel(wish, answer)).await
    }

    /// Ends an attempt. The observer hears what came of it.
    pub(crate) async fn end(&self, end: Arc<AttemptEnd>) {
        // Without a writer the next start finds the task running and sees to it.
        let _ = self.queue.send(Change::End(end)).await;
    }

    /// Writes down the progress of an attempt, unless it no longer owns the task.
    pub(crate) async fn progress(&self, progress: StoredProgress) -> Result<(), StoreError> {
        self.change(|answer| Change::Progress(progress, answer)).await
    }

    /// Makes tasks ready whose time has come.
    pub(crate) async fn promote(&self, seqs: Vec<i64>) -> Result<(), StoreError> {
        self.change(|answer| Change::Promote(seqs, answer)).await
    }

    /// Erases finished tasks, and one step's worth of idempotency keys from before `keys_cutoff`.
    /// Returns whether there may be more such keys.
    pub(crate) async fn erase(&self, step: EraseStep) -> Result<bool, StoreError> {
        self.change(|answer| Change::Erase(step, answer)).await
    }

    /// Records submission times.
    async fn record_times(&self, step: TimesStep) -> Result<(), StoreError> {
        self.change(|answer| Change::RecordTimes(step, answer)).await
    }

    /// Notes retries of older tasks.
    async fn record_retries(&self, step: RetriesStep) -> Result<(), StoreError> {
        self.change(|answer| Change::RecordRetries(step, answer)).await
    }

    /// When this returns, no task will be claimed any more.
    pub(crate) async fn stop_claiming(&self) {
        self.claiming.store(false, Ordering::Relaxed);
        // The transaction under way may claim yet; this empty change comes after it.
        let _ = self.promote(Vec::new()).await;
    }

    /// Commits what is queued and closes the database.
    pub(crate) async fn close(&self) {
        // The last to close is the writer, which can empty the write-ahead log.
        self.readers.close().await;
        // An error says that the writer has ended, which is what is asked for.
        let _ = self.change(Change::Close).await;
    }

    /// How many tasks there are.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The size of the write-ahead log, in bytes.
    pub(crate) fn log_size(&self) -> u64 {
        self.log.metadata().map_or(0, |file| file.len())
    }

    async fn change<T>(&self, change: impl FnOnce(Answer<T>) -> Change) -> Result<T, StoreError> {
        let (answer, outcome) = oneshot::channel();
        self.queue.send(change(answer)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

/// A place in the queue of changes.
pub(crate) struct Place<'s>(mpsc::Permit<'s, Change>);

impl Place<'_> {
    /// Stores a new task. It is queued when this is first polled, and then it is stored even if the
    /// caller goes away.
    pub(crate) async fn submit(self, task: Box<NewTask>) -> Result<Submitted, StoreError> {
        let (answer, outcome) = oneshot::channel();
        self.0.send(Change::Submit(task, answer));
        outcome.await.map_err(|_| StoreError::Closed)?
    }
}

/// Progress that is worth writing down.
#[derive(Debug)]
pub(crate) struct StoredProgress {
    pub(crate) seq: i64,
    pub(crate) epoch: i64,
    pub(crate) percent: f64,
    pub(crate) message: String,
    pub(crate) updated_at: Timestamp,
}
