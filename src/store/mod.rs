//! The database. One writer commits all queued changes as one transaction; reads never wait for it.
//!
//! A `change` goes in, a `Committed` comes out: the writer hands each commit to an `Observer`
//! before it answers the callers. Nothing here knows what a task does.

mod change;
mod committed;
mod counts;
mod engine;
mod error;
mod filter;
mod record;
mod results;
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
    AttemptEnd, CancelEffect, Cancellation, Idempotency, NewTask, NewTypes, QueuePermit, Refused,
    Replay, Retry, StoredProgress,
};
use change::{Change, Queue};
pub(crate) use committed::{Commit, Committed, Observer};
pub(crate) use counts::Unfinished;
use engine::Engine;
pub use error::OpenError;
pub(crate) use error::StoreError;
pub(crate) use filter::{Cursor, ListFilter, MAX_PAGE_BYTES, MAX_POSITION, Positions, TaskPage};
pub(crate) use record::{CANCELLED_MESSAGE, LogOwner, LogTail, StoredDue, TaskRecord};
use slots::Slots;
pub(crate) use slots::{Limits, TypeLimit};
use sqlite::ReadHalf;
pub(crate) use sqlite::{BackupError, backup, real_path, state_files, state_folder};
pub(crate) use writer::Writer;

use crate::task::TaskId;

/// Handle for all reads and changes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    queue: Queue,
    pub(crate) reads: ReadHalf,
    /// Cleared by [`stop_claiming`](Self::stop_claiming), read by the writer before each transaction.
    claiming: Arc<AtomicBool>,
}

/// Parts of an open database.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) writer: Writer,
    /// Pending tasks that wait for a time.
    pub(crate) due: Vec<StoredDue>,
}

/// Opens the database, creates or migrates it as needed, and recovers from a crash. Calls
/// `remove_partial` (path, id, epoch) for the output of each attempt that the crash interrupted, before
/// that attempt is forgotten.
///
/// # Errors
/// See [`OpenError`]; foreign files are left unchanged.
pub(crate) async fn open(
    path: &Path,
    limits: Limits,
    remove_partial: impl Fn(&str, TaskId, i64),
) -> Result<Opened, OpenError> {
    let (queue, changes) = Queue::new();
    let sqlite::Opened { write, read, due, suspects } =
        sqlite::open(path, &limits, remove_partial, &queue).await?;
    let claiming = Arc::new(AtomicBool::new(true));
    let (slots, counts) = (Slots::new(limits, suspects), Arc::clone(read.counts()));
    let engine = Engine::Sqlite(Box::new(write));
    let writer = Writer::new(engine, changes, slots, counts, Arc::clone(&claiming));
    Ok(Opened { store: Store { queue, reads: read, claiming }, writer, due })
}

/// Changes. Each resolves after the observer has seen it.
impl Store {
    /// Waits for a queue permit.
    pub(crate) async fn queue_permit(&self) -> Result<QueuePermit<'_>, StoreError> {
        self.queue.permit().await
    }

    /// Cancels a pending task, or stores the request on a running one.
    pub(crate) async fn cancel(&self, asked: Cancellation) -> Result<CancelEffect, StoreError> {
        self.queue.change(|answer| Change::Cancel(asked, answer)).await
    }

    /// Ends an attempt, unless its task belongs to another one. Resolves when the end is queued; `answer`
    /// is called with the result.
    pub(crate) async fn end(
        &self,
        end: Arc<AttemptEnd>,
        answer: impl FnOnce(Result<(), StoreError>) + Send + Sync + 'static,
    ) {
        match self.queue.permit().await {
            Ok(permit) => permit.end(end, Box::new(answer)),
            Err(closed) => answer(Err(closed)),
        }
    }

    /// Stores the progress of an attempt, unless its task belongs to another one.
    pub(crate) async fn progress(&self, progress: StoredProgress) -> Result<(), StoreError> {
        self.queue.change(|answer| Change::Progress(progress, answer)).await
    }

    /// Stores the end of the log of an attempt, unless its task was erased.
    pub(crate) async fn log(&self, tail: LogTail) -> Result<(), StoreError> {
        self.queue.change(|answer| Change::Log(tail, answer)).await
    }

    /// Makes tasks ready whose time has come.
    pub(crate) async fn promote(&self, seqs: Vec<i64>) -> Result<(), StoreError> {
        self.queue.change(|answer| Change::Promote(seqs, answer)).await
    }

    /// Replaces the limits of the task types, and looks again at tasks that could not be run.
    pub(crate) async fn set_types(&self, types: NewTypes) -> Result<(), StoreError> {
        self.queue.change(|answer| Change::Types(types, answer)).await
    }

    /// Stops claims. Resolves when the last one is published.
    pub(crate) async fn stop_claiming(&self) {
        self.claiming.store(false, Ordering::Relaxed);
        // The current transaction may still claim; this empty change is committed after it.
        let _ = self.promote(Vec::new()).await;
    }

    /// Erases old tasks and idempotency keys, and backfills what older versions did not record. Runs
    /// until the store is closed.
    pub(crate) async fn upkeep(self, retention: Option<Duration>) {
        sqlite::upkeep(self.reads, self.queue, retention).await;
    }

    /// Commits the queued changes and closes the database.
    pub(crate) async fn close(&self) {
        // The writer closes last, so that it can empty the write-ahead log.
        self.reads.close().await;
        // Fails if the writer has already ended.
        let _ = self.queue.change(Change::Close).await;
    }
}
