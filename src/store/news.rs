//! What the writer tells of what it has committed.

use std::sync::Arc;
use std::time::Duration;

use super::batch::{Answers, Batch};
use super::{Answer, AttemptEnd, StoreError, Submitted, TaskRecord};
use crate::task::{Task, TaskId, Timestamp};

/// Hears of changes from the writer.
pub(crate) trait Observer: Send + Sync + 'static {
    /// A transaction was committed, of so many changes and in this time.
    fn wrote(&self, changes: usize, took: Duration);

    /// A task of this type was stored.
    fn stored(&self, task_type: &'static str);

    /// Whether to tell of new tasks that wait.
    fn wants_new_tasks(&self) -> bool;

    /// These changes were committed, in this order. Called before the clients are answered, so it
    /// must be quick.
    fn committed(&self, changes: Vec<Committed>);
}

/// One committed change, or one that came to nothing.
pub(crate) enum Committed {
    /// A submission was not stored.
    Refused,
    /// A task was stored, and waits. Told if [`Observer::wants_new_tasks`].
    Stored(Box<TaskRecord>),
    /// A task was stored that is not to run before that time; named by its `seq`.
    Scheduled(i64, Timestamp),
    /// A pending task is running now, and it is the observer's to run. Its code is there if it has been in
    /// memory since the submission.
    Claimed(Box<TaskRecord>, Option<Box<dyn Task>>),
    /// A pending task was set aside because its row cannot be read; named by its `seq`.
    SetAside(i64),
    /// A pending task was cancelled; its `seq` beside it, and how it is now if that can be read.
    Cancelled(TaskId, i64, Option<Box<TaskRecord>>),
    /// An attempt ended, at this time.
    Ended(Arc<AttemptEnd>, Timestamp),
    /// The end of an attempt was not stored.
    NotEnded(Arc<AttemptEnd>, StoreError),
    /// The end of an attempt was not stored because the task is not that attempt's any more.
    Disowned(Arc<AttemptEnd>),
}

/// What was committed, or refused, and not told yet.
#[derive(Default)]
pub(super) struct News {
    pub(super) changes: Vec<Committed>,
    pub(super) submitted: Vec<(Answer<Submitted>, Submitted)>,
    /// The rest of each batch, without what is in `submitted`.
    pub(super) answered: Vec<(Batch, Result<Answers, StoreError>)>,
}

impl News {
    /// Nothing in this batch was changed.
    pub(super) fn refuse(&mut self, batch: Batch, error: StoreError) {
        // Whoever waits for an answer decides whether this is worth a line in the log.
        tracing::debug!(error = &error as &dyn std::error::Error, "could not store a change");
        let not_ended = |end: &Arc<_>| Committed::NotEnded(Arc::clone(end), error.clone());
        self.changes.extend(batch.submits.iter().map(|_| Committed::Refused));
        self.changes.extend(batch.ends.iter().map(not_ended));
        self.answered.push((batch, Err(error)));
    }

    /// Tells the observer, then the clients.
    pub(super) fn tell(self, observer: &dyn Observer) {
        observer.committed(self.changes);
        for (answer, outcome) in self.submitted {
            let _ = answer.send(Ok(outcome));
        }
        for (batch, answers) in self.answered {
            match answers {
                Ok(answers) => batch.answer(answers),
                Err(error) => batch.fail(&error),
            }
        }
    }
}
