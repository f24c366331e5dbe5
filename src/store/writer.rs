//! The one that writes: takes all changes that wait, applies them as one transaction, tells the
//! observer, then answers everybody (group commit).
//!
//! While a transaction is being committed the next changes gather, so batches grow with the load
//! by themselves and the cost of reaching the disk is shared.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::mpsc;

use super::batch::{Batch, Change};
use super::places::Places;
use super::{
    AttemptEnd, CancelEffect, StoreError, Submitted, TaskRecord, claims, retention, submissions,
    transitions,
};
use crate::task::{Task, TaskId, Timestamp};

/// Upper limit of the changes in one transaction, so that the first of them is not kept waiting.
const MAX_BATCH: usize = 1024;

/// Hears of changes from the writer.
pub(crate) trait Observer: Send + Sync + 'static {
    /// The code of a task that is to be claimed; an error says why this server cannot run it.
    fn prepare(&self, record: &TaskRecord) -> Result<Box<dyn Task>, String>;

    /// These changes were committed, in this order. Called before the clients are answered and
    /// before the next batch, so it must be quick.
    fn committed(&self, changes: Vec<Committed>);
}

/// One committed change, or one that came to nothing.
pub(crate) enum Committed {
    /// A submission was not stored.
    Refused,
    /// A task was stored that is not to run before that time; named by its `seq`.
    Scheduled(i64, Timestamp),
    /// A pending task is running now, and it is the observer's to run.
    Claimed(Box<TaskRecord>, Box<dyn Task>),
    /// A pending task was cancelled; its `seq` beside it.
    Cancelled(TaskId, i64),
    /// An attempt ended.
    Ended(Arc<AttemptEnd>),
    /// The end of an attempt was not stored.
    NotEnded(Arc<AttemptEnd>, StoreError),
    /// The end of an attempt was not stored because the task is not that attempt's any more.
    Disowned(Arc<AttemptEnd>),
}

/// Owns the connection that writes, and the count of what runs.
pub(crate) struct Writer {
    connection: SqliteConnection,
    /// Keeps other servers away from the database.
    lock: File,
    queue: mpsc::Receiver<Change>,
    claiming: Arc<AtomicBool>,
    places: Places,
    /// The `seq` of the next new task.
    next_seq: i64,
    /// Whether to look for ready tasks again without waiting for a change.
    look_again: bool,
    /// Whether ready tasks may be waiting that a free place is for.
    may_be_ready: bool,
}

impl Writer {
    pub(super) fn new(
        connection: SqliteConnection,
        lock: File,
        queue: mpsc::Receiver<Change>,
        claiming: Arc<AtomicBool>,
        places: Places,
        next_seq: i64,
    ) -> Self {
        // What was ready when the server started.
        let (look_again, may_be_ready) = (true, true);
        Self { connection, lock, queue, claiming, places, next_seq, look_again, may_be_ready }
    }

    /// Works until the store is closed.
    pub(crate) async fn run(mut self, observer: Arc<dyn Observer>) {
        self.fill_places(&*observer).await;
        let mut next = self.queue.recv().await;
        while next.is_some() {
            let mut batch = Batch::default();
            while let Some(change) = next.take_if(|change| batch.takes(change)) {
                batch.add(change);
                if batch.len() >= MAX_BATCH || batch.close.is_some() {
                    break;
                }
                next = self.another().await;
            }
            let close = batch.close.take();
            self.commit(batch, &*observer).await;
            self.fill_places(&*observer).await;
            if let Some(answer) = close {
                let closed = self.connection.close().await.map_err(StoreError::from);
                drop(self.lock);
                let _ = answer.send(closed);
                return;
            }
            if next.is_none() {
                next = self.queue.recv().await;
            }
        }
    }

    /// A further change for the batch, if one is waiting or about to come: those who were answered
    /// together come back together.
    async fn another(&mut self) -> Option<Change> {
        if let Ok(change) = self.queue.try_recv() {
            return Some(change);
        }
        tokio::task::yield_now().await;
        self.queue.try_recv().ok()
    }

    /// Claims until no place is left that a task was set aside from.
    async fn fill_places(&mut self, observer: &dyn Observer) {
        while std::mem::take(&mut self.look_again) {
            self.commit(Batch::default(), observer).await;
        }
    }

    /// One transaction for the whole batch. If that fails, one for each change, so that a change
    /// that cannot be made fails alone.
    async fn commit(&mut self, batch: Batch, observer: &dyn Observer) {
        match self.try_commit(&batch, observer).await {
            Ok(outcomes) => self.settle(batch, outcomes, observer),
            Err(error) if batch.len() <= 1 => refuse(batch, &error.into(), observer),
            Err(error) => {
                tracing::debug!(%error, changes = batch.len(), "batch failed, one by one now");
                for single in batch.split() {
                    match self.try_commit(&single, observer).await {
                        Ok(outcomes) => self.settle(single, outcomes, observer),
                        Err(error) => refuse(single, &error.into(), observer),
                    }
                }
            }
        }
    }

    /// The statements around a transaction are plain ones: SQLite ends a transaction by itself when
    /// the disk is full, and sqlx's own bookkeeping would not believe that.
    async fn try_commit(
        &mut self,
        batch: &Batch,
        observer: &dyn Observer,
    ) -> sqlx::Result<Outcomes> {
        execute(&mut self.connection, "BEGIN IMMEDIATE").await?;
        let done = match self.apply(batch, observer).await {
            Ok(outcomes) => execute(&mut self.connection, "COMMIT").await.map(|()| outcomes),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // An error here says that there is no transaction any more, which is as good.
            let _ = execute(&mut self.connection, "ROLLBACK").await;
        }
        done
    }

    /// Ends come before submissions and claims, which can have their places, and before
    /// cancellations: a task that has ended cannot be cancelled any more.
    async fn apply(&mut self, batch: &Batch, observer: &dyn Observer) -> sqlx::Result<Outcomes> {
        let connection = &mut self.connection;
        let now = Timestamp::now();
        transitions::progress(connection, &batch.progress()).await?;
        let ended = transitions::end(connection, &batch.ends(), now).await?;
        transitions::promote(connection, &batch.promoted()).await?;
        let cancelled = transitions::cancel(connection, &batch.cancels()).await?;
        let mut erased = Vec::with_capacity(batch.erasures.len());
        for (step, _) in &batch.erasures {
            erased.push(retention::erase(connection, step).await?);
        }

        let ended_seqs = || batch.ends.iter().filter(|_| ended).map(|end| end.seq);
        let mut room = self.places.free_after(ended_seqs());
        let claiming = self.claiming.load(Ordering::Relaxed);
        let mut may_be_ready = self.may_be_ready
            || batch.may_make_ready()
            || ended_seqs().any(|seq| self.places.is_rationed(seq));
        // Where nothing waits new tasks need not be looked for to be claimed.
        let at_once = (claiming && !may_be_ready).then_some(&mut room);
        let submitted =
            submissions::submit(connection, &batch.new_tasks(), self.next_seq, at_once, now)
                .await?;
        may_be_ready |=
            submitted.iter().any(|it| matches!(it, Submitted::Stored { running: false, .. }));

        let mut claimed = Vec::new();
        let mut look_again = false;
        if claiming && may_be_ready && room.total > 0 {
            let (ready, mut held) = claims::ready(connection, &room).await?;
            // Fewer than there is room for: whoever waits still is rationed.
            may_be_ready = ready.len() == room.total;
            let mut records = Vec::with_capacity(ready.len());
            let mut code = Vec::with_capacity(ready.len());
            for record in ready {
                match observer.prepare(&record) {
                    Ok(task) => {
                        records.push(record);
                        code.push(task);
                    }
                    Err(reason) => held.push((record.seq, reason)),
                }
            }
            // The places of what was set aside are still free, and nothing else may come along.
            look_again = !held.is_empty();
            may_be_ready |= look_again;
            claims::hold(connection, &held).await?;
            claims::claim(connection, &mut records, now).await?;
            claimed = records.into_iter().zip(code).collect();
        }
        Ok(Outcomes { now, submitted, ended, cancelled, erased, claimed, may_be_ready, look_again })
    }

    /// Takes note of what was committed, tells the observer, then the clients.
    fn settle(&mut self, mut batch: Batch, outcomes: Outcomes, observer: &dyn Observer) {
        let Outcomes {
            now,
            submitted,
            ended,
            cancelled,
            erased,
            claimed,
            may_be_ready,
            look_again,
        } = outcomes;
        self.may_be_ready = may_be_ready;
        self.look_again = look_again;
        let mut changes = Vec::with_capacity(batch.len() + claimed.len());
        for end in batch.ends.drain(..) {
            self.places.leave(end.seq);
            changes.push(if ended { Committed::Ended(end) } else { Committed::Disowned(end) });
        }
        for (&id, &effect) in &cancelled {
            if let CancelEffect::Cancelled { seq } = effect {
                changes.push(Committed::Cancelled(id, seq));
            }
        }
        let mut started = claimed;
        let mut answers = Vec::with_capacity(submitted.len());
        for ((task, answer), outcome) in
            std::mem::take(&mut batch.submits).into_iter().zip(submitted)
        {
            match outcome {
                Submitted::Stored { seq, running } => {
                    self.next_seq = seq + 1;
                    match task.run_at {
                        _ if running => started.push(task.into_claimed(seq, now)),
                        Some(run_at) => changes.push(Committed::Scheduled(seq, run_at)),
                        None => {}
                    }
                }
                Submitted::OutputInUse(_) | Submitted::Replayed(_) => {
                    changes.push(Committed::Refused);
                }
            }
            answers.push((answer, outcome));
        }
        for (record, task) in started {
            self.places.fill(&record);
            changes.push(Committed::Claimed(Box::new(record), task));
        }
        observer.committed(changes);
        for (answer, outcome) in answers {
            let _ = answer.send(Ok(outcome));
        }
        batch.answer(&cancelled, erased);
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> sqlx::Result<()> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

/// Tells everybody in a batch that nothing was changed.
fn refuse(batch: Batch, error: &StoreError, observer: &dyn Observer) {
    // Whoever waits for an answer decides whether this is worth a line in the log.
    tracing::debug!(error = error as &dyn std::error::Error, "could not store a change");
    let not_ended = |end: &Arc<_>| Committed::NotEnded(Arc::clone(end), error.clone());
    let refused = batch.submits.iter().map(|_| Committed::Refused);
    observer.committed(refused.chain(batch.ends.iter().map(not_ended)).collect());
    batch.fail(error);
}

/// What one transaction came to.
struct Outcomes {
    now: Timestamp,
    /// In the order of the batch.
    submitted: Vec<Submitted>,
    /// Whether the attempts that ended owned their tasks.
    ended: bool,
    cancelled: HashMap<TaskId, CancelEffect>,
    /// In the order of the batch.
    erased: Vec<Option<i64>>,
    /// Tasks that waited, and their code.
    claimed: Vec<(TaskRecord, Box<dyn Task>)>,
    may_be_ready: bool,
    look_again: bool,
}
