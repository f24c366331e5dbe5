//! The writing half of the engine: commits batches, one transaction each.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use sqlx::{Connection, SqliteConnection};

use super::files::{DatabaseFiles, Locks};
use super::positions::PositionCache;
use super::ready::Ready;
use super::times::Times;
use super::transaction::{Transaction, Written};
use super::{claims, retention, retries, submissions, times, transitions};
use crate::store::change::{
    AttemptEnd, Cancellation, Change, EraseStep, NewTask, StoredProgress, UpkeepStep,
};
use crate::store::engine::Results;
use crate::store::error::StoreError;
use crate::store::slots::FreeSlots;
use crate::task::{TaskStatus, Timestamp, with_causes};

/// Shortest pause between two looks at the files of the database: a look is several system calls, too
/// many for each commit.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Owns the connection that writes.
pub(in crate::store) struct WriteHalf {
    pub(super) connection: SqliteConnection,
    pub(super) locks: Locks,
    pub(super) files: Arc<DatabaseFiles>,
    /// Time of the last look at the files.
    pub(super) looked: Instant,
    /// Whether the log was merged after one of the files was lost.
    pub(super) merged: bool,
    pub(super) state: State,
}

/// What the writing half knows of the stored tasks, and shares with the reading half.
pub(super) struct State {
    pub(super) ready: Ready,
    /// The `seq` of the next new task. Written after the commit of the tasks before it.
    pub(super) next_seq: Arc<AtomicI64>,
    pub(super) times: Arc<Times>,
    pub(super) positions: Arc<PositionCache>,
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
                Change::Close(_) => {}
            }
        }
        kinds
    }

    /// Rows of the largest usual statement.
    fn rows(&self) -> usize {
        self.submits.len().max(self.ends.len()).max(self.progress.len()).max(1)
    }

    /// Whether a stored task may be ready after this batch that was not before.
    fn may_make_ready(&self) -> bool {
        !self.promoted.is_empty() || self.ends.iter().any(|end| end.status == TaskStatus::Pending)
    }
}

impl WriteHalf {
    pub(in crate::store) async fn commit(
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
                // An error here says that there is no transaction any more, which is as good.
                let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                return Err(self.files.explain(error));
            }
        };
        self.state.committed(&kinds, &results, ready);
        // Nobody learns of a commit to a file that the next start will not find.
        if self.looked.elapsed() >= LOOK_PAUSE {
            self.looked = Instant::now();
            self.check_files().await?;
        }
        if end.is_some_and(|end| changed.by(end) != kinds.ends.len() as u64) {
            // Not all of them owned their tasks.
            let disowned = transitions::disowned(&mut self.connection, &kinds.ends).await;
            results.disowned = disowned.unwrap_or_default();
        }
        Ok(results)
    }

    pub(in crate::store) async fn close(self) -> Result<(), StoreError> {
        self.connection.close().await?;
        drop(self.locks);
        Ok(())
    }

    /// Fails if a file of the database was lost. If that is the log, SQLite still has it open, and
    /// what was accepted is merged from it into the database.
    async fn check_files(&mut self) -> Result<(), StoreError> {
        let Err(lost) = self.files.check() else { return Ok(()) };
        if !std::mem::replace(&mut self.merged, true) {
            let merge = sqlx::query("PRAGMA wal_checkpoint(FULL)");
            if let Err(error) = merge.execute(&mut self.connection).await {
                let error = with_causes(&error);
                tracing::error!(error, "cannot merge the write-ahead log into the database");
            }
        }
        Err(lost)
    }
}

impl State {
    /// Makes the changes within the transaction. Returns their results, the ready tasks that are left
    /// if it is committed, and the statement that ended attempts.
    ///
    /// 1. Ends come first: their slots are for claims and submissions, and a task that has ended
    ///    cannot be cancelled any more.
    /// 2. Pending tasks are claimed before new ones are stored.
    /// 3. New ones run at once where no other task waits.
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

        // Unknown until this is committed, in case it is not.
        let mut ready = std::mem::take(&mut self.ready);
        if kinds.may_make_ready() || free.reopened || results.cancelled.was_pending() {
            ready = Ready::Unknown;
        }
        let has_slots = free.total > 0;
        if has_slots {
            ready = claim(transaction, ready, &mut free, &mut results).await?;
        }
        let at_once = (has_slots && matches!(ready, Ready::Known(_))).then_some(&mut free);
        let next_seq = self.next_seq.load(Ordering::Relaxed);
        results.submitted =
            submissions::submit(transaction, &kinds.submits, next_seq, at_once, results.at).await?;
        Ok((results, ready, end))
    }

    /// Takes note of what was committed.
    fn committed(&mut self, kinds: &ByKind<'_>, results: &Results, ready: Ready) {
        self.ready = ready;
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

/// Claims ready tasks for free slots. Returns those that are left.
async fn claim(
    transaction: &mut Transaction<'_>,
    mut ready: Ready,
    free: &mut FreeSlots,
    results: &mut Results,
) -> sqlx::Result<Ready> {
    let mut complete = true;
    if matches!(ready, Ready::Unknown) {
        let (found, unreadable) = claims::ready(transaction.connection().await?, free).await?;
        // If there are fewer than slots, those that are left wait for a slot of their kind.
        complete = found.len() < free.total && unreadable.is_empty();
        claims::set_unrunnable(transaction, &unreadable);
        // Their slots are still free, and nothing else may come along.
        results.claims_left = !unreadable.is_empty();
        results.unrunnable = unreadable.into_iter().map(|(seq, _)| seq).collect();
        ready = Ready::Known(found);
    }
    results.claimed = ready.take(free);
    claims::claim(transaction, &mut results.claimed, results.at);
    Ok(if complete { ready } else { Ready::Unknown })
}
