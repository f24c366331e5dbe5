//! The fold: updates the manager's memory with each commit. Nothing else changes it, and callers are
//! answered afterwards.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::attempt::{Attempts, Runner};
use super::due::Due;
use super::events::Events;
use super::metrics::Metrics;
use super::waiters::Waiters;
use crate::store::{AttemptEnd, Commit, Committed, Observer, TaskRecord};
use crate::task::{StateFolder, TaskStatus, Timestamp};

/// Parts of the manager that follow from commits.
pub(super) struct Fold {
    pub(super) attempts: Arc<Attempts>,
    pub(super) runner: Arc<Runner>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) events: Arc<Events>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) state_folder: Arc<StateFolder>,
    pub(super) due: mpsc::UnboundedSender<Due>,
}

impl Observer for Fold {
    fn committed(&self, commit: Commit) {
        self.metrics.wrote(commit.size, commit.took);
        for change in commit.changes {
            match change {
                Committed::Stored(record) => self.stored(*record),
                Committed::Claimed { record, code } => {
                    if code.is_some() {
                        self.metrics.submitted(&record.info.task_type);
                    }
                    self.metrics.started(&record.info);
                    let pending = Some(TaskStatus::Pending);
                    self.events.changed(pending, record.epoch, || record.info.clone());
                    self.runner.start(*record, code);
                }
                Committed::Cancelled { id, seq, record } => {
                    self.schedule(Due::Never(seq));
                    self.state_folder.forget(id);
                    self.waiters.wake(id);
                    if let Some(record) = record {
                        self.cancelled(*record);
                    }
                }
                Committed::Ended(end, at) => self.ended(&end, at),
                Committed::Disowned(end) => {
                    tracing::error!(
                        task.id = %end.id,
                        "an attempt ended, but its task belongs to another one"
                    );
                    self.attempts.remove(end.id, end.epoch);
                }
            }
        }
    }
}

impl Fold {
    fn stored(&self, record: TaskRecord) {
        self.metrics.submitted(&record.info.task_type);
        if let Some(run_at) = record.due_at {
            self.schedule(Due::At(record.seq, run_at));
        }
        self.events.changed(None, record.epoch, || record.info);
    }

    fn cancelled(&self, TaskRecord { epoch, info, .. }: TaskRecord) {
        self.metrics.ended(&info.task_type, None, info.status, info.updated_at);
        self.events.changed(Some(TaskStatus::Pending), epoch, || info);
    }

    fn ended(&self, end: &AttemptEnd, at: Timestamp) {
        tracing::debug!(task.id = %end.id, status = end.status.name(), "ended");
        if end.status.is_final() {
            self.state_folder.forget(end.id);
        }
        if let Some(attempt) = self.attempts.get(end.id).filter(|it| it.epoch == end.epoch) {
            // From here on reads show the end, so a new stream cannot miss it; see `Events::changed`.
            attempt.end();
            let claimed = &attempt.claimed;
            self.metrics.ended(&claimed.task_type, claimed.started_at, end.status, at);
            let running = Some(TaskStatus::Running);
            self.events.changed(running, end.epoch, || attempt.after(end, at));
        }
        self.attempts.remove(end.id, end.epoch);
        if end.status.is_final() {
            self.waiters.wake(end.id);
        } else if let Some(pause) = end.pause {
            self.schedule(Due::After(end.seq, pause));
        }
    }

    fn schedule(&self, due: Due) {
        // Fails only while the server shuts down.
        let _ = self.due.send(due);
    }
}
