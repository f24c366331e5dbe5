//! The one that writes: takes all changes that wait, applies them as one transaction, tells the
//! observer, then answers everybody (group commit).
//!
//! While a transaction is being committed the next changes gather, so batches grow with the load
//! by themselves and the cost of reaching the disk is shared.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::mpsc;

use super::batch::{Batch, Change};
use super::claims::Room;
use super::{
    AttemptEnd, CancelEffect, StoreError, Submitted, TaskRecord, claims, retention, submissions,
    transitions,
};
use crate::task::{TaskId, TaskStatus, Timestamp};

/// Upper limit of the changes in one transaction, so that the first of them is not kept waiting.
const MAX_BATCH: usize = 1024;

/// Hears of changes from the writer.
pub(crate) trait Observer: Send + Sync + 'static {
    /// Whether this server can run the task; if not, why. Asked before a task is claimed.
    fn runnable(&self, record: &TaskRecord) -> Result<(), String>;

    /// These changes were committed, in this order. Called before the clients are answered and
    /// before the next batch, so it must be quick.
    fn committed(&self, changes: Vec<Committed>);
}

/// One committed change, or one that came to nothing.
#[derive(Debug)]
pub(crate) enum Committed {
    /// A submission was not stored.
    Refused,
    /// A task was stored that is not to run before that time; named by its `seq`.
    Scheduled(i64, Timestamp),
    /// A pending task is running now, and it is the observer's to run.
    Claimed(Box<TaskRecord>),
    /// A pending task was cancelled; its `seq` beside it.
    Cancelled(TaskId, i64),
    /// An attempt ended with that status; `pending` if there is to be another.
    Ended(Arc<AttemptEnd>, TaskStatus),
}

/// Owns the connection that writes, and the count of what runs.
#[derive(Debug)]
pub(crate) struct Writer {
    connection: SqliteConnection,
    queue: mpsc::Receiver<Change>,
    claiming: Arc<AtomicBool>,
    limits: Limits,
    /// Whether any task may be what killed the server before.
    suspects: bool,
    /// By `seq`.
    running: HashMap<i64, Running>,
    /// Whether to look for ready tasks again without waiting for a change.
    look_again: bool,
    /// Whether ready tasks may be waiting. False saves the look when it is known that there are
    /// none.
    may_be_ready: bool,
}

/// How many tasks may run at once: in all, and of each type that this server knows.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) by_type: Vec<(&'static str, usize)>,
}

impl Limits {
    /// The places that are free once these attempts have ended.
    fn room(&self, running: &HashMap<i64, Running>, ended: &HashMap<i64, TaskStatus>) -> Room {
        let staying = || running.iter().filter(|(seq, _)| !ended.contains_key(seq));
        let of_type = |name| staying().filter(|(_, task)| task.task_type == name).count();
        let free = |&(name, limit): &(&'static str, usize)| (name, limit - of_type(name));
        Room {
            total: self.total - staying().count(),
            by_type: self.by_type.iter().map(free).collect(),
            suspect: !staying().any(|(_, task)| task.suspect),
        }
    }

    /// Whether fewer tasks of this type may run than of all together.
    fn ration(&self, task_type: &str) -> bool {
        self.by_type.iter().any(|&(name, limit)| name == task_type && limit < self.total)
    }
}

/// What the writer has to know of a running task.
#[derive(Debug)]
struct Running {
    task_type: String,
    /// Whether the server has died twice while this task ran.
    suspect: bool,
}

impl Writer {
    pub(super) fn new(
        connection: SqliteConnection,
        queue: mpsc::Receiver<Change>,
        claiming: Arc<AtomicBool>,
        limits: Limits,
        suspects: bool,
    ) -> Self {
        Self {
            connection,
            queue,
            claiming,
            limits,
            suspects,
            running: HashMap::new(),
            may_be_ready: true,
            look_again: false,
        }
    }

    /// Works until the store is closed.
    pub(crate) async fn run(mut self, observer: Arc<dyn Observer>) {
        // What was ready when the server started.
        self.look_again = true;
        self.fill_places(&*observer).await;
        let mut next = self.queue.recv().await;
        while next.is_some() {
            let mut batch = Batch::default();
            while let Some(change) = next.take_if(|change| batch.takes(change)) {
                batch.add(change);
                if batch.len() >= MAX_BATCH || batch.close.is_some() {
                    break;
                }
                next = self.queue.try_recv().ok();
            }
            let close = batch.close.take();
            self.commit(batch, &*observer).await;
            self.fill_places(&*observer).await;
            if let Some(answer) = close {
                let closed = self.connection.close().await.map_err(StoreError::from);
                let _ = answer.send(closed);
                return;
            }
            if next.is_none() {
                next = self.queue.recv().await;
            }
        }
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

    async fn apply(&mut self, batch: &Batch, observer: &dyn Observer) -> sqlx::Result<Outcomes> {
        let connection = &mut self.connection;
        let now = Timestamp::now();
        // Ends come before cancellations: a task that has ended cannot be cancelled any more.
        let mut outcomes = Outcomes {
            submitted: submissions::submit(connection, &batch.new_tasks()).await?,
            ended: {
                transitions::progress(connection, &batch.progress()).await?;
                transitions::end(connection, &batch.ends(), now).await?
            },
            cancelled: {
                transitions::promote(connection, &batch.promoted()).await?;
                transitions::cancel(connection, &batch.cancels()).await?
            },
            erased: {
                let mut erased = Vec::with_capacity(batch.erasures.len());
                for (step, _) in &batch.erasures {
                    erased.push(retention::erase(connection, step).await?);
                }
                erased
            },
            claimed: Vec::new(),
            may_be_ready: self.may_be_ready || batch.may_make_ready(),
            look_again: false,
        };
        let ended = &outcomes.ended;
        // Others of its kind may have waited for the end of a task that is rationed.
        outcomes.may_be_ready |= self.running.iter().any(|(seq, task)| {
            ended.contains_key(seq) && (task.suspect || self.limits.ration(&task.task_type))
        });
        let mut room = self.limits.room(&self.running, ended);
        room.suspect &= self.suspects;
        if room.total > 0 && outcomes.may_be_ready && self.claiming.load(Ordering::Relaxed) {
            let (ready, mut held) = claims::ready(connection, &room).await?;
            // Fewer than there is room for: whoever waits still is rationed.
            outcomes.may_be_ready = ready.len() == room.total;
            for record in ready {
                match observer.runnable(&record) {
                    Ok(()) => outcomes.claimed.push(record),
                    Err(reason) => held.push((record.seq, reason)),
                }
            }
            // The places of what was set aside are still free, and nothing else may come along.
            outcomes.look_again = !held.is_empty();
            outcomes.may_be_ready |= outcomes.look_again;
            claims::hold(connection, &held).await?;
            claims::claim(connection, &mut outcomes.claimed, now).await?;
        }
        Ok(outcomes)
    }

    /// Takes note of what was committed, tells the observer, then the clients.
    fn settle(&mut self, batch: Batch, outcomes: Outcomes, observer: &dyn Observer) {
        let Outcomes { submitted, ended, cancelled, erased, claimed, may_be_ready, look_again } =
            outcomes;
        self.may_be_ready = may_be_ready;
        self.look_again = look_again;
        let mut changes = Vec::with_capacity(batch.len() + claimed.len());
        for outcome in &submitted {
            match outcome {
                Submitted::Stored { due: None } => {}
                Submitted::Stored { due: Some((seq, time)) } => {
                    changes.push(Committed::Scheduled(*seq, *time));
                }
                Submitted::OutputInUse(_) | Submitted::Replayed(_) => {
                    changes.push(Committed::Refused);
                }
            }
        }
        for (end, _) in &batch.ends {
            if let Some(&status) = ended.get(&end.seq) {
                self.running.remove(&end.seq);
                changes.push(Committed::Ended(Arc::clone(end), status));
            }
        }
        for (&id, &effect) in &cancelled {
            if let CancelEffect::Cancelled { seq } = effect {
                changes.push(Committed::Cancelled(id, seq));
            }
        }
        for record in claimed {
            let task_type = record.info.task_type.clone();
            let running = Running { task_type, suspect: record.is_suspect() };
            self.running.insert(record.seq, running);
            changes.push(Committed::Claimed(Box::new(record)));
        }
        observer.committed(changes);
        batch.answer(submitted, &ended, &cancelled, erased);
    }
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> sqlx::Result<()> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

/// Tells everybody in a batch that nothing was changed.
fn refuse(batch: Batch, error: &StoreError, observer: &dyn Observer) {
    // Whoever waits for an answer decides whether this is worth a line in the log.
    tracing::debug!(error = error as &dyn std::error::Error, "could not store a change");
    observer.committed(batch.submits.iter().map(|_| Committed::Refused).collect());
    batch.fail(error);
}

/// What one transaction came to.
struct Outcomes {
    /// In the order of the batch.
    submitted: Vec<Submitted>,
    ended: HashMap<i64, TaskStatus>,
    cancelled: HashMap<TaskId, CancelEffect>,
    /// In the order of the batch.
    erased: Vec<Option<i64>>,
    claimed: Vec<TaskRecord>,
    may_be_ready: bool,
    look_again: bool,
}
