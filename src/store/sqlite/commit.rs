//! The writing half of the engine: commits each batch as one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection, SqliteConnection};

use super::files::{DatabaseFiles, Locks};
use super::positions::PositionCache;
use super::reads::ReadHalf;
use super::ready::Ready;
use super::times::Times;
use super::transaction::{Transaction, Written};
use super::types::{self, KnownTypes};
use super::{claims, logs, outputs, retention, retries, submissions, times, transitions};
use crate::store::change::{
    AttemptEnd, Cancellation, Change, EraseStep, NewTask, NewTypes, StoredProgress, UpkeepStep,
};
use crate::store::error::StoreError;
use crate::store::record::LogTail;
use crate::store::results::Results;
use crate::store::slots::FreeSlots;
use crate::task::{TaskStatus, Timestamp, with_causes};

/// Minimum time between two checks of the database files: a check takes several system calls, too many
/// for each commit.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Owns the connection for writes.
pub(crate) struct WriteHalf {
    pub(super) connection: SqliteConnection,
    locks: Locks,
    files: Arc<DatabaseFiles>,
    /// Time of the last check of the files.
    checked: Instant,
    /// Whether the log was checkpointed after a file was lost.
    checkpointed: bool,
    state: State,
}

/// The writing half's knowledge of the stored tasks, partly shared with the reading half.
struct State {
    ready: Ready,
    /// The `seq` of the next new task. Written after the commit of the tasks before it.
    next_seq: Arc<AtomicI64>,
    /// Whether an unfinished task may have a folder as its output. Once set it stays: then submissions
    /// take a few more lookups.
    folder_outputs: bool,
    times: Arc<Times>,
    positions: Arc<PositionCache>,
    types: Arc<KnownTypes>,
}

/// The changes of a batch by kind, each in the order of the batch.
#[derive(Default)]
struct ByKind<'b> {
    submits: Vec<&'b NewTask>,
    progress: Vec<&'b StoredProgress>,
    ends: Vec<&'b AttemptEnd>,
    promoted: Vec<i64>,
    cancels: Vec<&'b Cancellation>,
    erasures: Vec<&'b EraseStep>,
    upkeep: Vec<&'b UpkeepStep>,
    logs: Vec<&'b LogTail>,
    types: Vec<&'b NewTypes>,
}

impl<'b> ByKind<'b> {
    fn of(batch: &'b [Change]) -> Self {
        let mut kinds = Self::default();
        for change in batch {
            match change {
                Change::Submit(task, _) => kinds.submits.push(task),
                Change::Progress(progress, _) => kinds.progress.push(progress),
                Change::End(end, _) => kinds.ends.push(end),
                Change::Promote(seqs, _) => kinds.promoted.extend(seqs),
                Change::Cancel(asked, _) => kinds.cancels.push(asked),
                Change::Erase(step, _) => kinds.erasures.push(step),
                Change::Upkeep(step, _) => kinds.upkeep.push(step),
                Change::Log(tail, _) => kinds.logs.push(tail),
                Change::Types(types, _) => kinds.types.push(types),
                Change::Close(_) => {}
            }
        }
        kinds
    }

    /// Number of rows of the largest common statement.
    fn rows(&self) -> usize {
        self.submits.len().max(self.ends.len()).max(self.progress.len()).max(1)
    }

    /// Whether this batch may make a stored task ready.
    fn may_make_ready(&self) -> bool {
        !self.promoted.is_empty()
            || !self.types.is_empty()
            || self.ends.iter().any(|end| end.status == TaskStatus::Pending)
    }
}

impl WriteHalf {
    pub(super) fn new(
        connection: SqliteConnection,
        locks: Locks,
        folder_outputs: bool,
        read: &ReadHalf,
    ) -> Self {
        let state = State {
            ready: Ready::Unknown,
            next_seq: Arc::clone(&read.next_seq),
            folder_outputs,
            times: Arc::clone(&read.times),
            positions: Arc::clone(&read.positions),
            types: Arc::clone(&read.types),
        };
        let (files, checked) = (Arc::clone(&read.files), Instant::now());
        Self { connection, locks, files, checked, checkpointed: false, state }
    }

    /// Commits a batch; see [`engine`](crate::store::engine) for the contract.
    pub(crate) async fn commit(
        &mut self,
        batch: &[Change],
        free: FreeSlots,
    ) -> Result<Results, StoreError> {
        if self.files.known().is_err() {
            self.check_files().await?;
        }
        let kinds = ByKind::of(batch);
        let mut transaction = Transaction::begin(&mut self.connection, kinds.rows());
        let done = match self.state.apply(&mut transaction, &kinds, free).await {
            Ok(applied) => transaction.commit().await.map(|changed| (applied, changed)),
            Err(error) => Err(error),
        };
        let ((mut results, ready, end), changed) = match done {
            Ok(done) => done,
            Err(error) => {
                // Fails if SQLite has already rolled back, as it does when the disk is full.
                let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                return Err(self.files.explain(error));
            }
        };
        self.state.committed(&kinds, &results, ready);
        // A commit to a file that the next start will not find must not be acknowledged.
        if self.checked.elapsed() >= CHECK_INTERVAL {
            self.checked = Instant::now();
            self.check_files().await?;
        }
        if end.is_some_and(|end| changed.by(end) != kinds.ends.len() as u64) {
            // Some attempts no longer owned their tasks.
            let disowned = transitions::disowned(&mut self.connection, &kinds.ends).await;
            results.disowned = disowned.unwrap_or_default();
        }
        Ok(results)
    }

    pub(crate) async fn close(self) -> Result<(), StoreError> {
        self.connection.close().await?;
        drop(self.locks);
        Ok(())
    }

    /// Fails if a database file was lost. SQLite still has it open: in case it is the log, its changes
    /// are checkpointed into the database.
    async fn check_files(&mut self) -> Result<(), StoreError> {
        let Err(lost) = self.files.check() else { return Ok(()) };
        if !std::mem::replace(&mut self.checkpointed, true) {
            let checkpoint = sqlx::query("PRAGMA wal_checkpoint(FULL)");
            if let Err(error) = checkpoint.execute(&mut self.connection).await {
                let error = with_causes(&error);
                tracing::error!(error, "cannot checkpoint the write-ahead log");
            }
        }
        Err(lost)
    }
}

impl State {
    /// Applies the changes. Returns their results, the cache of ready tasks after the commit, and the
    /// statement that ends attempts.
    ///
    /// 1. Ends: they free slots for claims and submissions, and an ended task can no longer be
    ///    cancelled. Then all other changes to stored tasks.
    /// 2. Claims: waiting tasks take free slots before new ones do.
    /// 3. Submissions: new tasks run at once if no other task waits.
    async fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
        kinds: &ByKind<'_>,
        mut free: FreeSlots,
    ) -> sqlx::Result<(Results, Ready, Option<Written>)> {
        let mut results = Results::new(Timestamp::now());
        transitions::progress(transaction, &kinds.progress);
        let end = transitions::end(transaction, &kinds.ends, results.at);
        transitions::promote(transaction, &kinds.promoted);
        results.cancelled = transitions::cancel(transaction, &kinds.cancels).await?;
        for step in &kinds.erasures {
            results.erased.push(retention::erase(transaction.connection().await?, step).await?);
        }
        times::store(transaction, &kinds.upkeep).await?;
        retries::store(transaction, &kinds.upkeep).await?;
        logs::store(transaction, &kinds.logs);
        if !kinds.types.is_empty() {
            let connection = transaction.connection().await?;
            results.all_unrunnable = Some(types::look_again(connection, &kinds.types).await?);
        }

        // Stays unknown if the transaction fails.
        let mut ready = std::mem::take(&mut self.ready);
        if kinds.may_make_ready() || free.reopened || results.cancelled.was_pending() {
            ready = Ready::Unknown;
        }
        let has_slots = free.limits.total > 0;
        if has_slots {
            ready = claim(transaction, ready, &mut free, &mut results).await?;
        }
        let at_once = (has_slots && matches!(ready, Ready::Known(_))).then_some(&mut free);
        let next_seq = self.next_seq.load(Ordering::Relaxed);
        let is_folder =
            |task: &&NewTask| task.output_key.as_deref().is_some_and(outputs::is_folder);
        self.folder_outputs |= kinds.submits.iter().any(is_folder);
        let (submits, folders) = (&kinds.submits, self.folder_outputs);
        results.submitted =
            submissions::submit(transaction, submits, next_seq, at_once, folders, results.at)
                .await?;
        Ok((results, ready, end))
    }

    /// Updates the state after a commit.
    fn committed(&mut self, kinds: &ByKind<'_>, results: &Results, ready: Ready) {
        self.ready = ready;
        if let Some(types) = kinds.types.last() {
            self.types.set(types.limits.clone());
        }
        self.positions.invalidate();
        for record in results.submitted.iter().flatten() {
            self.next_seq.store(record.seq + 1, Ordering::Relaxed);
            if record.info.status == TaskStatus::Pending && record.due_at.is_none() {
                self.ready.add(record);
            }
        }
        for step in &kinds.upkeep {
            self.times.record(&step.blocks);
            self.times.forget(step.first_block);
        }
    }
}

/// Claims ready tasks for free slots. Returns the remaining ones.
async fn claim(
    transaction: &mut Transaction<'_>,
    mut ready: Ready,
    free: &mut FreeSlots,
    results: &mut Results,
) -> sqlx::Result<Ready> {
    let mut complete = true;
    if matches!(ready, Ready::Unknown) {
        let (found, unreadable) = claims::ready(transaction.connection().await?, free).await?;
        // Fewer tasks than slots: the remaining ones wait for a slot of their type, or of a suspect.
        complete = found.len() < free.limits.total && unreadable.is_empty();
        claims::set_unrunnable(transaction, &unreadable);
        // Their slots are still free, and the next commit may be far off.
        results.claims_left = !unreadable.is_empty();
        results.unrunnable = unreadable.into_iter().map(|(seq, _)| seq).collect();
        ready = Ready::Known(found);
    }
    results.claimed = ready.take(free);
    claims::claim(transaction, &mut results.claimed, results.at);
    Ok(if complete { ready } else { Ready::Unknown })
}
