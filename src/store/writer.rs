//! The one that writes: takes all changes that wait, applies them as one transaction, tells the
//! observer, then answers everybody (group commit).
//!
//! While a transaction is being committed the next changes gather, so batches grow with the load
//! by themselves and the cost of reaching the disk is shared. While a batch is told to those who
//! wait for it, the next one is on its way to the disk.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::mpsc;

use super::batch::{Answers, Batch, Change};
use super::counts::Counts;
use super::files::{DatabaseFiles, Locks};
use super::news::{Committed, News, Observer};
use super::places::Places;
use super::positions::PositionCache;
use super::ready::{Ready, ReadyTask};
use super::retention::Erased;
use super::times::{self, Times};
use super::transaction::{Transaction, Written};
use super::transitions::Cancelled;
use super::{
    CancelEffect, StoreError, Submitted, claims, retention, retries, submissions, transitions,
};
use crate::task::{TaskStatus, Timestamp, with_causes};

/// Upper limit of the changes in one transaction, so that the first of them is not kept waiting.
const MAX_BATCH: usize = 1024;

/// Shortest pause between two looks at the files of the database: a look is several system calls, too many
/// for each commit.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Owns the connection that writes.
pub(crate) struct Writer {
    connection: SqliteConnection,
    locks: Locks,
    files: Arc<DatabaseFiles>,
    /// Time of the last look at the files.
    looked: Instant,
    /// Whether the log was merged after one of the files was lost.
    saved: bool,
    queue: mpsc::Receiver<Change>,
    /// A change that did not go into the batch before.
    next: Option<Change>,
    state: State,
}

/// What the writer knows of the stored tasks.
pub(super) struct State {
    claiming: Arc<AtomicBool>,
    places: Places,
    counts: Arc<Counts>,
    times: Arc<Times>,
    positions: Arc<PositionCache>,
    /// The `seq` of the next new task. Written after the commit of the tasks before it.
    next_seq: Arc<AtomicI64>,
    /// Whether to look for ready tasks again without waiting for a change.
    look_again: bool,
    ready: Ready,
}

impl Writer {
    pub(super) fn new(
        connection: SqliteConnection,
        locks: Locks,
        files: Arc<DatabaseFiles>,
        queue: mpsc::Receiver<Change>,
        state: State,
    ) -> Self {
        let looked = Instant::now();
        Self { connection, locks, files, looked, saved: false, queue, next: None, state }
    }

    /// Works until the store is closed.
    pub(crate) async fn run(mut self, observer: Arc<dyn Observer>) {
        let mut news = News::default();
        loop {
            let mut batch = self.gather();
            if batch.len() == 0 && batch.close.is_none() && !self.state.look_again {
                std::mem::take(&mut news).tell(&*observer);
                match self.queue.recv().await {
                    Some(change) => self.next = Some(change),
                    None => return,
                }
                continue;
            }
            let close = batch.close.take();
            // The commit first: while the disk works there is time to tell what it did before.
            let told = async { std::mem::take(&mut news).tell(&*observer) };
            let (committed, ()) = join(self.commit(batch, &*observer), told).await;
            news = committed;
            if let Some(answer) = close {
                news.tell(&*observer);
                let closed = self.connection.close().await.map_err(StoreError::from);
                drop(self.locks);
                let _ = answer.send(closed);
                return;
            }
        }
    }

    /// What is waiting, as far as it goes into one transaction.
    fn gather(&mut self) -> Batch {
        let mut batch = Batch::default();
        while batch.len() < MAX_BATCH && batch.close.is_none() {
            match self.next.take().or_else(|| self.queue.try_recv().ok()) {
                Some(change) if batch.takes(&change) => batch.add(change),
                other => {
                    self.next = other;
                    break;
                }
            }
        }
        batch
    }

    /// One transaction for the whole batch. If that fails, one for each change, so that a change
    /// that cannot be made fails alone.
    async fn commit(&mut self, batch: Batch, observer: &dyn Observer) -> News {
        let mut news = News::default();
        match self.try_commit(&batch, observer).await {
            Ok(outcomes) => self.state.settle(batch, outcomes, observer, &mut news),
            Err(error) if batch.len() <= 1 => news.refuse(batch, error),
            Err(error) => {
                tracing::debug!(%error, changes = batch.len(), "batch failed, one by one now");
                for single in batch.split() {
                    match self.try_commit(&single, observer).await {
                        Ok(outcomes) => self.state.settle(single, outcomes, observer, &mut news),
                        Err(error) => news.refuse(single, error),
                    }
                }
            }
        }
        news
    }

    async fn try_commit(
        &mut self,
        batch: &Batch,
        observer: &dyn Observer,
    ) -> Result<Outcomes, StoreError> {
        self.state.look_again = false;
        if self.files.known().is_err() {
            self.check_files().await?;
        }
        let begin = Instant::now();
        let mut transaction = Transaction::begin(&mut self.connection, batch.rows());
        let done = match self.state.apply(&mut transaction, batch).await {
            Ok(outcomes) => transaction.commit().await.map(|changed| (outcomes, changed)),
            Err(error) => Err(error),
        };
        let (mut outcomes, changed) = match done {
            Ok(done) => done,
            Err(error) => {
                // An error here says that there is no transaction any more, which is as good.
                let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                return Err(self.files.explain(error));
            }
        };
        self.state.positions.invalidate();
        // Nobody is told of what is in a file that the next start will not find.
        if self.looked.elapsed() >= LOOK_PAUSE {
            self.looked = Instant::now();
            self.check_files().await?;
        }
        if outcomes.end.is_some_and(|end| changed.by(end) != batch.ends.len() as u64) {
            // Not all of them owned their tasks.
            outcomes.ended = transitions::ended(&mut self.connection, &batch.ends()).await.ok();
        }
        observer.wrote(batch.len(), begin.elapsed());
        Ok(outcomes)
    }

    /// Fails if a file of the database was lost. If that is the log, SQLite still has it open, and what
    /// was accepted is saved from it into the database.
    async fn check_files(&mut self) -> Result<(), StoreError> {
        let Err(lost) = self.files.check() else { return Ok(()) };
        if !std::mem::replace(&mut self.saved, true) {
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
    pub(super) fn new(
        claiming: Arc<AtomicBool>,
        places: Places,
        next_seq: Arc<AtomicI64>,
        counts: Arc<Counts>,
        times: Arc<Times>,
        positions: Arc<PositionCache>,
    ) -> Self {
        // What was ready when the server started.
        let (look_again, ready) = (true, Ready::Unknown);
        Self { claiming, places, counts, times, positions, next_seq, look_again, ready }
    }

    /// Ends come before claims and submissions, which can have their places, and before
    /// cancellations: a task that has ended cannot be cancelled any more. Tasks that wait are claimed
    /// before new ones are stored, so that these can run at once where no other waits.
    async fn apply(
        &mut self,
        transaction: &mut Transaction<'_>,
        batch: &Batch,
    ) -> sqlx::Result<Outcomes> {
        let now = Timestamp::now();
        transitions::progress(transaction, &batch.progress());
        let end = transitions::end(transaction, &batch.ends(), now);
        transitions::promote(transaction, &batch.promoted());
        let cancelled = transitions::cancel(transaction, &batch.cancels()).await?;
        let mut erased = Vec::with_capacity(batch.erasures.len());
        for (step, _) in &batch.erasures {
            erased.push(retention::erase(transaction.connection().await?, step).await?);
        }

        times::store(transaction, &batch.times()).await?;
        retries::store(transaction, &batch.retries()).await?;

        let ended = || batch.ends.iter().map(|end| (end.seq, end.epoch));
        let mut room = self.places.free_after(ended());
        let claiming = self.claiming.load(Ordering::Relaxed);
        // Unknown until this is committed, in case it is not.
        let mut ready = std::mem::take(&mut self.ready);
        if batch.may_make_ready()
            || cancelled.was_pending()
            || ended().any(|(seq, _)| self.places.is_rationed(seq))
        {
            ready = Ready::Unknown;
        }
        let mut claimed = Vec::new();
        let mut set_aside = Vec::new();
        let mut look_again = false;
        if claiming && room.total > 0 {
            let mut complete = true;
            if matches!(ready, Ready::Unknown) {
                let connection = transaction.connection().await?;
                let (found, held) = claims::ready(connection, &room).await?;
                // Fewer than there is room for: whoever waits still is rationed.
                complete = found.len() < room.total;
                claims::hold(transaction, &held);
                // The places of what was set aside are still free, and nothing else may come along.
                look_again = !held.is_empty();
                set_aside = held.into_iter().map(|(seq, _)| seq).collect();
                ready = Ready::Known(found.into_iter().map(|record| (record, None)).collect());
            }
            claimed = ready.take(&mut room);
            claims::claim(transaction, &mut claimed, now);
            if look_again || !complete {
                ready = Ready::Unknown;
            }
        }

        // Where nothing waits that could have the place new tasks are stored as running.
        let at_once = (claiming && matches!(ready, Ready::Known(_))).then_some(&mut room);
        let new = batch.new_tasks();
        let next_seq = self.next_seq.load(Ordering::Relaxed);
        let submitted = submissions::submit(transaction, &new, next_seq, at_once, now).await?;
        let ended = None;
        Ok(Outcomes {
            now,
            submitted,
            end,
            ended,
            cancelled,
            erased,
            set_aside,
            claimed,
            ready,
            look_again,
        })
    }

    /// Takes note of what was committed, as news for all who wait for it.
    fn settle(
        &mut self,
        mut batch: Batch,
        outcomes: Outcomes,
        observer: &dyn Observer,
        news: &mut News,
    ) {
        let tell_new = observer.wants_new_tasks();
        let Outcomes { now, submitted, ended, cancelled, erased, claimed, .. } = outcomes;
        news.changes.extend(outcomes.set_aside.into_iter().map(Committed::SetAside));
        self.ready = outcomes.ready;
        self.look_again |= outcomes.look_again;
        for end in batch.ends.drain(..) {
            let had_place = self.places.leave((end.seq, end.epoch));
            let owned = ended.as_ref().is_none_or(|ended| ended.contains(&end.seq));
            // The same end may come again if the answer to the first was lost; it counts once.
            if owned && had_place {
                self.counts.change(TaskStatus::Running, end.status);
            }
            news.changes.push(match owned {
                true => Committed::Ended(end, now),
                false => Committed::Disowned(end),
            });
        }
        let Cancelled { effects: cancelled, mut records } = cancelled;
        for (&id, &effect) in &cancelled {
            if let CancelEffect::Cancelled { seq } = effect {
                self.counts.change(TaskStatus::Pending, TaskStatus::Cancelled);
                news.changes.push(Committed::Cancelled(id, seq, records.remove(&id)));
            }
        }
        for (step, _) in &batch.times {
            self.times.record(&step.blocks);
            self.times.forget(step.first);
        }
        for status in erased.iter().flat_map(|erased| &erased.statuses) {
            self.counts.remove(*status);
        }
        let waited = claimed.len();
        let mut started = claimed;
        for ((task, answer), outcome) in batch.submits.drain(..).zip(submitted) {
            match outcome {
                Submitted::Stored { seq, running } => {
                    self.next_seq.store(seq + 1, Ordering::Relaxed);
                    let status = if running { TaskStatus::Running } else { TaskStatus::Pending };
                    self.counts.add(status, 1);
                    observer.stored(task.task_type);
                    if let Some(run_at) = task.run_at {
                        news.changes.push(Committed::Scheduled(seq, run_at));
                    }
                    if running {
                        let (record, code) = task.into_record(seq, Some(now));
                        started.push((record, Some(code)));
                    } else if tell_new || matches!(self.ready, Ready::Known(_)) {
                        let (record, code) = task.into_record(seq, None);
                        if tell_new {
                            news.changes.push(Committed::Stored(Box::new(record.clone())));
                        }
                        if record.due_at.is_none() {
                            self.ready.add((record, Some(code)));
                        }
                    }
                }
                Submitted::OutputInUse(_) | Submitted::RetriedBefore | Submitted::Replayed(_) => {
                    news.changes.push(Committed::Refused);
                }
            }
            news.submitted.push((answer, outcome));
        }
        for _ in 0..waited {
            self.counts.change(TaskStatus::Pending, TaskStatus::Running);
        }
        for (record, task) in started {
            self.places.fill(&record);
            news.changes.push(Committed::Claimed(Box::new(record), task));
        }
        news.answered.push((batch, Ok(Answers { cancelled, erased })));
    }
}

/// What one transaction came to.
struct Outcomes {
    now: Timestamp,
    /// In the order of the batch.
    submitted: Vec<Submitted>,
    /// The statement that ended attempts.
    end: Option<Written>,
    /// The attempts that owned their tasks; `None` for all.
    ended: Option<HashSet<i64>>,
    cancelled: Cancelled,
    /// In the order of the batch.
    erased: Vec<Erased>,
    /// Tasks that waited and cannot be read, by `seq`.
    set_aside: Vec<i64>,
    /// Tasks that waited.
    claimed: Vec<ReadyTask>,
    /// What waits yet, without what was submitted.
    ready: Ready,
    look_again: bool,
}

#[cfg(test)]
mod tests;
