//! Group commit: the writer takes all queued changes, has the engine commit them as one transaction,
//! hands the commit to the observer, and answers the callers.
//!
//! Changes gather during a commit, so batches grow with the load and share the cost of a sync. A commit
//! is published while the next one is being written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::join;
use tokio::sync::mpsc;

use super::change::{Answer, AttemptEnd, CancelEffect, Change, NewTask};
use super::committed::{Commit, Committed, Observer};
use super::counts::Counts;
use super::engine::Engine;
use super::error::StoreError;
use super::results::{Cancelled, Results};
use super::slots::Slots;
use crate::task::{TaskStatus, Timestamp};

/// Upper limit of the changes in one transaction. Bounds the wait of the first one.
const MAX_BATCH: usize = 1024;

/// Owns the engine's writing half and the run slots, and keeps the counts.
pub(crate) struct Writer {
    engine: Engine,
    queue: mpsc::Receiver<Change>,
    /// A change that did not fit into the last batch.
    next: Option<Change>,
    slots: Slots,
    counts: Arc<Counts>,
    claiming: Arc<AtomicBool>,
    /// Whether tasks may be claimable even if no change is queued.
    claims_left: bool,
}

/// Commits and answers that are not yet published.
#[derive(Default)]
struct Unpublished {
    commits: Vec<Commit>,
    answers: Vec<Box<dyn FnOnce() + Send>>,
}

impl Unpublished {
    /// The observer goes first, so an answered caller finds the change in the manager's memory.
    fn publish(&mut self, observer: &dyn Observer) {
        self.commits.drain(..).for_each(|commit| observer.committed(commit));
        self.answers.drain(..).for_each(|answer| answer());
    }

    fn answer<T: Send + 'static>(&mut self, answer: Answer<T>, value: T) {
        // The caller may have stopped waiting.
        self.answers.push(Box::new(move || drop(answer.send(Ok(value)))));
    }

    fn refuse(&mut self, change: Change, error: StoreError) {
        // The caller decides whether this deserves a higher level.
        tracing::debug!(error = &error as &dyn std::error::Error, "change failed");
        self.answers.push(Box::new(move || change.refuse(error)));
    }
}

impl Writer {
    pub(super) fn new(
        engine: Engine,
        queue: mpsc::Receiver<Change>,
        slots: Slots,
        counts: Arc<Counts>,
        claiming: Arc<AtomicBool>,
    ) -> Self {
        // Tasks may be ready since before the start.
        Self { engine, queue, next: None, slots, counts, claiming, claims_left: true }
    }

    /// Runs until the store is closed.
    pub(crate) async fn run(mut self, observer: Arc<dyn Observer>) {
        let mut unpublished = Unpublished::default();
        loop {
            let (batch, close) = self.gather();
            if batch.is_empty() && close.is_none() && !self.claims_left {
                unpublished.publish(&*observer);
                match self.queue.recv().await {
                    Some(change) => self.next = Some(change),
                    None => return,
                }
                continue;
            }
            // Polled first, so that the previous commit is published while the disk works.
            let mut committed = Unpublished::default();
            let commit = self.commit(batch, &mut committed);
            join(commit, async { unpublished.publish(&*observer) }).await;
            if let Some(answer) = close {
                committed.publish(&*observer);
                let _ = answer.send(self.engine.close().await);
                return;
            }
            unpublished = committed;
        }
    }

    /// Takes queued changes for one transaction. Also returns the answer of a close that follows them.
    fn gather(&mut self) -> (Vec<Change>, Option<Answer<()>>) {
        let mut batch = Vec::new();
        while batch.len() < MAX_BATCH {
            match self.next.take().or_else(|| self.queue.try_recv().ok()) {
                Some(Change::Close(answer)) => return (batch, Some(answer)),
                Some(change) if !repeats_key(&batch, &change) => batch.push(change),
                other => {
                    self.next = other;
                    break;
                }
            }
        }
        (batch, None)
    }

    /// Commits the batch as one transaction. If that fails, commits each change alone, so that a bad
    /// change fails alone.
    async fn commit(&mut self, batch: Vec<Change>, unpublished: &mut Unpublished) {
        match self.try_commit(&batch).await {
            Ok(results) => self.settle(batch, results, unpublished),
            Err(error) if batch.len() > 1 => {
                tracing::debug!(%error, changes = batch.len(), "batch failed, retrying one by one");
                for change in batch {
                    Box::pin(self.commit(vec![change], unpublished)).await;
                }
            }
            Err(error) => {
                batch.into_iter().for_each(|change| unpublished.refuse(change, error.clone()));
            }
        }
    }

    async fn try_commit(&mut self, batch: &[Change]) -> Result<(Results, Instant), StoreError> {
        self.claims_left = false;
        for change in batch {
            if let Change::Types(types, _) = change {
                self.slots.set_limits(types.limits.clone());
            }
        }
        let begin = Instant::now();
        let ended = batch.iter().filter_map(|change| match change {
            Change::End(end, _) => Some((end.seq, end.epoch)),
            _ => None,
        });
        let mut free = self.slots.free_after(ended);
        if !self.claiming.load(Ordering::Relaxed) {
            free.limits.total = 0;
        }
        let results = self.engine.commit(batch, free).await?;
        Ok((results, begin))
    }

    /// Updates counts and slots after a commit, and prepares its publication.
    fn settle(
        &mut self,
        batch: Vec<Change>,
        (results, begin): (Results, Instant),
        unpublished: &mut Unpublished,
    ) {
        let mut commit = Commit { size: batch.len(), took: begin.elapsed(), changes: Vec::new() };
        let changes = &mut commit.changes;
        let Results { at, submitted, disowned, cancelled, erased, claimed, .. } = results;
        self.claims_left |= results.claims_left;
        let mut claims = Vec::new();
        if let Some(seqs) = results.all_unrunnable {
            self.counts.replace_unrunnable(seqs);
        }
        results.unrunnable.into_iter().for_each(|seq| self.counts.set_unrunnable(seq));
        let (mut submitted, mut erased) = (submitted.into_iter(), erased.into_iter());
        for change in batch {
            match change {
                Change::Submit(task, answer) => {
                    let NewTask { code, reservation, .. } = *task;
                    let stored = submitted.next().expect("each submission has its result");
                    let stored = stored.map(|record| {
                        self.counts.add(record.info.status, 1);
                        match record.info.status {
                            TaskStatus::Running => claims.push((record, Some(code))),
                            _ => changes.push(Committed::Stored(record)),
                        }
                    });
                    // The task is counted or refused by now.
                    drop(reservation);
                    unpublished.answer(answer, stored);
                }
                Change::End(end, answer) => {
                    let owned = !disowned.contains(&(end.seq, end.epoch));
                    changes.push(self.ended(end, owned, at));
                    unpublished.answers.push(Box::new(move || answer(Ok(()))));
                }
                Change::Cancel(asked, answer) => {
                    unpublished.answer(answer, cancelled.effect(asked.id));
                }
                Change::Erase(_, answer) => {
                    let erased = erased.next().expect("each erasure has its result");
                    erased.statuses.iter().for_each(|&status| self.counts.add(status, -1));
                    unpublished.answer(answer, erased.more_keys);
                }
                Change::Progress(_, answer)
                | Change::Promote(_, answer)
                | Change::Upkeep(_, answer)
                | Change::Log(_, answer)
                | Change::Types(_, answer)
                | Change::Close(answer) => unpublished.answer(answer, ()),
            }
        }
        changes.extend(self.cancelled(cancelled));
        for record in claimed {
            self.counts.change(TaskStatus::Pending, TaskStatus::Running);
            claims.push((Box::new(record), None));
        }
        // After the ends, which freed these slots.
        for (record, code) in claims {
            self.slots.fill(&record);
            changes.push(Committed::Claimed { record, code });
        }
        unpublished.commits.push(commit);
    }

    /// Counts an end once: it is sent again if the answer to the first was lost.
    fn ended(&mut self, end: Arc<AttemptEnd>, owned: bool, at: Timestamp) -> Committed {
        let had_slot = self.slots.leave((end.seq, end.epoch));
        if !owned {
            return Committed::Disowned(end);
        }
        if had_slot {
            self.counts.change(TaskStatus::Running, end.status);
            if end.unrunnable {
                self.counts.set_unrunnable(end.seq);
            }
        }
        Committed::Ended(end, at)
    }

    fn cancelled(&mut self, Cancelled { effects, mut records }: Cancelled) -> Vec<Committed> {
        let pending = effects.into_iter().filter_map(|(id, effect)| {
            let CancelEffect::Cancelled { seq } = effect else { return None };
            self.counts.cancelled(seq);
            Some(Committed::Cancelled { id, seq, record: records.remove(&id) })
        });
        pending.collect()
    }
}

/// Whether a change has the same idempotency key as one in the batch. Only a stored task identifies
/// the second one as a replay.
fn repeats_key(batch: &[Change], change: &Change) -> bool {
    let new = key(change);
    new.is_some() && batch.iter().any(|known| key(known) == new)
}

fn key(change: &Change) -> Option<&str> {
    match change {
        Change::Submit(task, _) => task.idempotency.as_ref().map(|it| it.key.as_str()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
