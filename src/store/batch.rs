//! Changes that wait for the writer, and the answers that their senders wait for.

use std::collections::HashMap;
use std::sync::Arc;

use super::retention::Erased;
use super::retries::RetriesStep;
use super::times::TimesStep;
use super::{
    Answer, AttemptEnd, CancelEffect, Cancellation, EraseStep, NewTask, StoreError, StoredProgress,
    Submitted,
};
use crate::task::{TaskId, TaskStatus};

/// A change that waits for the writer.
pub(super) enum Change {
    Submit(Box<NewTask>, Answer<Submitted>),
    Progress(StoredProgress, Answer<()>),
    End(Arc<AttemptEnd>),
    Promote(Vec<i64>, Answer<()>),
    Cancel(Cancellation, Answer<CancelEffect>),
    Erase(EraseStep, Answer<bool>),
    RecordTimes(TimesStep, Answer<()>),
    RecordRetries(RetriesStep, Answer<()>),
    Close(Answer<()>),
}

/// Changes that are committed together, by kind.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) submits: Vec<(Box<NewTask>, Answer<Submitted>)>,
    pub(super) progress: Vec<(StoredProgress, Answer<()>)>,
    pub(super) ends: Vec<Arc<AttemptEnd>>,
    pub(super) promotes: Vec<(Vec<i64>, Answer<()>)>,
    pub(super) cancels: Vec<(Cancellation, Answer<CancelEffect>)>,
    pub(super) erasures: Vec<(EraseStep, Answer<bool>)>,
    pub(super) times: Vec<(TimesStep, Answer<()>)>,
    pub(super) retries: Vec<(RetriesStep, Answer<()>)>,
    pub(super) close: Option<Answer<()>>,
}

/// What was committed of a batch, for those who are not answered one by one.
pub(super) struct Answers {
    pub(super) cancelled: HashMap<TaskId, CancelEffect>,
    /// In the order of the batch.
    pub(super) erased: Vec<Erased>,
}

impl Batch {
    pub(super) fn add(&mut self, change: Change) {
        match change {
            Change::Submit(task, answer) => self.submits.push((task, answer)),
            Change::Progress(progress, answer) => self.progress.push((progress, answer)),
            Change::End(end) => self.ends.push(end),
            Change::Promote(seqs, answer) => self.promotes.push((seqs, answer)),
            Change::Cancel(wish, answer) => self.cancels.push((wish, answer)),
            Change::Erase(step, answer) => self.erasures.push((step, answer)),
            Change::RecordTimes(step, answer) => self.times.push((step, answer)),
            Change::RecordRetries(step, answer) => self.retries.push((step, answer)),
            Change::Close(answer) => self.close = Some(answer),
        }
    }

    /// Whether this change may be in the same transaction. One idempotency key may be there once:
    /// only a stored task shows the second of them that it is one.
    pub(super) fn takes(&self, change: &Change) -> bool {
        let Change::Submit(new, _) = change else { return true };
        let Some(new) = &new.idempotency else { return true };
        let mut keys = self.submits.iter().filter_map(|(task, _)| task.idempotency.as_ref());
        keys.all(|known| known.key != new.key)
    }

    pub(super) fn len(&self) -> usize {
        self.submits.len()
            + self.progress.len()
            + self.ends.len()
            + self.promotes.len()
            + self.cancels.len()
            + self.erasures.len()
            + self.times.len()
            + self.retries.len()
    }

    /// How many rows its largest statement has.
    pub(super) fn rows(&self) -> usize {
        self.submits.len().max(self.ends.len()).max(self.progress.len()).max(1)
    }

    pub(super) fn new_tasks(&self) -> Vec<&NewTask> {
        self.submits.iter().map(|(task, _)| &**task).collect()
    }

    pub(super) fn progress(&self) -> Vec<&StoredProgress> {
        self.progress.iter().map(|(progress, _)| progress).collect()
    }

    pub(super) fn ends(&self) -> Vec<&AttemptEnd> {
        self.ends.iter().map(|end| &**end).collect()
    }

    pub(super) fn promoted(&self) -> Vec<i64> {
        self.promotes.iter().flat_map(|(seqs, _)| seqs).copied().collect()
    }

    pub(super) fn cancels(&self) -> Vec<&Cancellation> {
        self.cancels.iter().map(|(wish, _)| wish).collect()
    }

    pub(super) fn times(&self) -> Vec<&TimesStep> {
        self.times.iter().map(|(step, _)| step).collect()
    }

    pub(super) fn retries(&self) -> Vec<&RetriesStep> {
        self.retries.iter().map(|(step, _)| step).collect()
    }

    /// Whether a stored task may be ready after this batch that was not before.
    pub(super) fn may_make_ready(&self) -> bool {
        !self.promotes.is_empty() || self.ends.iter().any(|end| end.status == TaskStatus::Pending)
    }

    pub(super) fn split(self) -> impl Iterator<Item = Batch> {
        let Self { submits, progress, ends, promotes, cancels, erasures, times, retries, close: _ } =
            self;
        let submits = submits.into_iter().map(|(task, answer)| Change::Submit(task, answer));
        let progress = progress.into_iter().map(|(new, answer)| Change::Progress(new, answer));
        let ends = ends.into_iter().map(Change::End);
        let promotes = promotes.into_iter().map(|(seqs, answer)| Change::Promote(seqs, answer));
        let cancels = cancels.into_iter().map(|(wish, answer)| Change::Cancel(wish, answer));
        let erasures = erasures.into_iter().map(|(step, answer)| Change::Erase(step, answer));
        let times = times.into_iter().map(|(step, answer)| Change::RecordTimes(step, answer));
        let retries = retries.into_iter().map(|(step, answer)| Change::RecordRetries(step, answer));
        let changes = submits.chain(progress).chain(ends).chain(promotes).chain(cancels);
        changes.chain(erasures).chain(times).chain(retries).map(|change| {
            let mut single = Self::default();
            single.add(change);
            single
        })
    }

    // An answer that nobody waits for any more is no fault: the change is made all the same.

    /// For all but submissions and ends.
    pub(super) fn answer(self, Answers { cancelled, erased }: Answers) {
        for (_, answer) in self.progress {
            let _ = answer.send(Ok(()));
        }
        for (_, answer) in self.promotes {
            let _ = answer.send(Ok(()));
        }
        for (_, answer) in self.times {
            let _ = answer.send(Ok(()));
        }
        for (_, answer) in self.retries {
            let _ = answer.send(Ok(()));
        }
        for (wish, answer) in self.cancels {
            let effect = cancelled.get(&wish.id).copied().unwrap_or(CancelEffect::Unknown);
            let _ = answer.send(Ok(effect));
        }
        for ((_, answer), erased) in self.erasures.into_iter().zip(erased) {
            let _ = answer.send(Ok(erased.more_keys));
        }
    }

    pub(super) fn fail(self, error: &StoreError) {
        for (_, answer) in self.submits {
            let _ = answer.send(Err(error.clone()));
        }
        for (_, answer) in self.progress {
            let _ = answer.send(Err(error.clone()));
        }
        for (_, answer) in self.promotes {
            let _ = answer.send(Err(error.clone()));
        }
        for (_, answer) in self.cancels {
            let _ = answer.send(Err(error.clone()));
        }
        for (_, answer) in self.erasures {
            let _ = answer.send(Err(error.clone()));
        }
        for (_, answer) in self.times {
            let _ = answer.send(Err(error.clone()));
        }
        for (_, answer) in self.retries {
            let _ = answer.send(Err(error.clone()));
        }
    }
}
