//! The database: every change goes through one writer that commits what waits as one transaction;
//! reads never wait for it.
//!
//! A [`change`] goes in, a [`Committed`] comes out: the writer hands each commit to an [`Observer`]
//! before it answers those who asked. Nothing here knows what a task does.

mod change;
mod committed;
mod counts;
mod engine;
mod error;
mod filter;
mod record;
mod slots;
mod sqlite;
mod writer;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod testing;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use change::{
    AttemptEnd, CancelEffect, Cancellation, Idempotency, NewTask, QueuePermit, Refused, Replay,
    Retry, StoredProgress,
};
use change::{Change, Queue};
pub(crate) use committed::{Commit, Committed, Observer};
pub(crate) use counts::{Counts, Unfinished};
use engine::{Engine, Reads};
pub use error::OpenError;
pub(crate) use error::StoreError;
pub(crate) use filter::{Cursor, ListFilter, MAX_PAGE_BYTES, MAX_POSITION, Positions, TaskPage};
pub(crate) use record::{CANCELLED_MESSAGE, StoredDue, TaskRecord};
pub(crate) use slots::Limits;
use slots::Slots;
pub(crate) use sqlite::{BackupError, backup, real_path, state_files};
pub(crate) use writer::Writer;

use crate::task::{TaskId, Timestamp};

/// The handle through which everyone reads and changes tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    queue: Queue,
    reads: Reads,
    counts: Arc<Counts>,
    claiming: Arc<AtomicBool>,
}

/// Everything that an open database consists of.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    /// Pending tasks that wait for a time.
    pub(crate) due: Vec<StoredDue>,
}

/// Opens the database, making or updating it as needed, and puts right what a crash left behind.
/// `remove_partial` is called for the output of each attempt that the crash interrupted (path, id,
/// epoch), before that attempt is forgotten.
///
/// # Errors
/// See [`OpenError`]; files that are not ours are left as they are.
pub(crate) async fn open(
    path: &Path,
    limits: Limits,
    remove_partial: impl Fn(&str, TaskId, i64),
) -> Result<Opened, OpenError> {
    let (queue, changes) = Queue::new();
    let opened = sqlite::open(path, &limits, remove_partial, &queue).await?;
    let claiming = Arc::new(AtomicBool::new(true));
    let (slots, counts) = (Slots::new(limits, opened.suspects), opened.counts);
    let engine = Engine::Sqlite(Box::new(opened.write));
    let writer = Writer::new(engine, changes, slots, Arc::clone(&counts), Arc::clone(&claiming));
    let store = Store { queue, reads: Reads::Sqlite(opened.read), counts, claiming };
    Ok(Opened { store, writer, due: opened.due })
}

/// Changes. Each resolves after the observer has seen it.
impl Store {
    /// Waits for permission to put a change into the queue.
    pub(crate) async fn queue_permit(&self) -> Result<QueuePermit<'_>, StoreError> {
        self.queue.permit().await
    }

    /// Cancels a pending task, or stores the request on a running one.
    pub(crate) async fn cancel(&self, asked: Cancellation) -> Result<CancelEffect, StoreError> {
        self.queue.change(|answer| Change::Cancel(asked, answer)).await
    }

    /// Ends an attempt, unless its task belongs to another one.
    pub(crate) async fn end(&self, end: Arc<AttemptEnd>) -> Result<(), StoreError> {
        self.queue.change(|answer| Change::End(end, answer)).await
    }

    /// Stores the progress of an attempt, unless its task belongs to another one.
    pub(crate) async fn progress(&self, progress: StoredProgress) -> Result<(), StoreError> {
        self.queue.change(|answer| Change::Progress(progress, answer)).await
    }

    /// Makes tasks ready that waited for a time.
    pub(crate) async fn promote(&self, seqs: Vec<i64>) -> Result<(), StoreError> {
        self.queue.change(|answer| Change::Promote(seqs, answer)).await
    }

    /// Resolves when no task will be claimed any more.
    pub(crate) async fn stop_claiming(&self) {
        self.claiming.store(false, Ordering::Relaxed);
        // The transaction under way may claim yet; this empty change comes after it.
        let _ = self.promote(Vec::new()).await;
    }

    /// Commits what is queued and closes the database.
    pub(crate) async fn close(&self) {
        let Reads::Sqlite(reads) = &self.reads;
        // The last to close is the writer, which can empty the write-ahead log.
        reads.close().await;
        // An error says that the writer has ended, as asked.
        let _ = self.queue.change(Change::Close).await;
    }
}

/// Reads.
impl Store {
    /// Number of tasks.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// One task.
    pub(crate) async fn get(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        let Reads::Sqlite(reads) = &self.reads;
        reads.get(id).await
    }

    /// One page of tasks, newest first, at a bounded cost.
    ///
    /// # Errors
    /// [`StoreError::Overloaded`] if there is no turn for it in time.
    pub(crate) async fn list(&self, filter: &ListFilter) -> Result<TaskPage, StoreError> {
        let Reads::Sqlite(reads) = &self.reads;
        reads.list(filter, &self.counts).await
    }

    /// The pending task that was submitted last.
    pub(crate) async fn newest_pending(&self) -> Result<Option<TaskRecord>, StoreError> {
        let Reads::Sqlite(reads) = &self.reads;
        reads.newest_pending().await
    }

    /// The pending task that was submitted last and that this build can run.
    pub(crate) async fn newest_runnable(&self) -> Result<Option<TaskId>, StoreError> {
        let Reads::Sqlite(reads) = &self.reads;
        reads.newest_runnable().await
    }

    /// Submission time of the oldest pending task.
    pub(crate) async fn oldest_pending(&self) -> Result<Option<Timestamp>, StoreError> {
        let Reads::Sqlite(reads) = &self.reads;
        reads.oldest_pending().await
    }

    /// Positions in the queue of the ready tasks that run next.
    pub(crate) async fn positions(&self) -> Result<Arc<Positions>, StoreError> {
        let Reads::Sqlite(reads) = &self.reads;
        reads.positions().await
    }

    /// The first submission with this idempotency key, if it is remembered.
    pub(crate) async fn replay(&self, key: &str) -> Result<Option<Replay>, StoreError> {
        let Reads::Sqlite(reads) = &self.reads;
        reads.replay(key).await
    }

    /// Fails if what is accepted could not be stored or found again.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let Reads::Sqlite(reads) = &self.reads;
        reads.check()
    }

    /// Size of the write-ahead log, in bytes.
    pub(crate) fn log_size(&self) -> u64 {
        let Reads::Sqlite(reads) = &self.reads;
        reads.log_size()
    }

    /// Erases old tasks and idempotency keys, and finds facts about the history that older versions
    /// did not keep. Works until the store is closed.
    pub(crate) async fn upkeep(self, retention: Option<Duration>) {
        let Self { queue, reads: Reads::Sqlite(reads), .. } = self;
        sqlite::upkeep(reads, queue, retention).await;
    }
}
