//! Keeps the manager's memory in step with the database: counts, live tasks and those who wait all
//! follow from what was committed.

use std::sync::Arc;
use std::time::Duration;

use super::due::Due;
use super::{Shared, runner};
use crate::store::{AttemptEnd, Committed, Observer, TaskRecord};
use crate::task::{TaskInfo, TaskStatus, Timestamp};

/// Follows what the store commits.
pub(super) struct Listener(pub(super) Arc<Shared>);

impl Listener {
    fn wait(&self, due: Due) {
        // Without a receiver the server is on its way down.
        let _ = self.0.due.send(due);
    }

    fn ended(&self, end: &AttemptEnd, at: Timestamp) {
        tracing::debug!(task.id = %end.id, status = end.status.name(), "ended");
        let Some(live) = self.0.live.get(end.id) else { return };
        // From here on whoever looks sees the end, so that no stream begins that does not.
        live.over.cancel();
        let TaskInfo { task_type, started_at, .. } = &*live.claimed;
        self.0.metrics.ended(task_type, *started_at, end.status, at);
        if self.0.events.wanted() {
            self.0.events.changed(Some(TaskStatus::Running), end.epoch, live.after(end, at));
        }
    }
}

impl Observer for Listener {
    fn wrote(&self, changes: usize, took: Duration) {
        self.0.metrics.wrote(changes, took);
    }

    fn stored(&self, task_type: &'static str) {
        self.0.metrics.submitted(task_type);
    }

    fn wants_new_tasks(&self) -> bool {
        self.0.events.wanted()
    }

    fn committed(&self, changes: Vec<Committed>) {
        let shared = &self.0;
        for change in changes {
            match change {
                Committed::Refused => shared.admission.left(),
                Committed::Stored(record) => {
                    shared.events.changed(None, record.epoch, record.info);
                }
                Committed::Claimed(record, task) => {
                    shared.admission.began();
                    shared.metrics.started(&record.info);
                    if shared.events.wanted() {
                        let info = record.info.clone();
                        shared.events.changed(Some(TaskStatus::Pending), record.epoch, info);
                    }
                    runner::start(shared, *record, task);
                }
                Committed::SetAside(seq) => shared.admission.set_aside(seq),
                Committed::Scheduled(seq, time) => self.wait(Due::At(seq, time)),
                Committed::Cancelled(id, seq, record) => {
                    shared.admission.cancelled(seq);
                    self.wait(Due::Never(seq));
                    shared.waiters.wake(id);
                    let Some(record) = record else { continue };
                    let TaskRecord { epoch, info, .. } = *record;
                    shared.metrics.ended(&info.task_type, None, info.status, info.updated_at);
                    if shared.events.wanted() {
                        shared.events.changed(Some(TaskStatus::Pending), epoch, info);
                    }
                }
                Committed::NotEnded(end, error) => {
                    if let Some(live) = shared.live.get(end.id) {
                        live.end_refused(&error);
                    }
                    runner::end_again(shared, end, &error);
                }
                Committed::Disowned(end) => {
                    // Cannot happen while one server owns the database; then the task is not ours.
                    tracing::error!(task.id = %end.id, "the end of an attempt found its task in other hands");
                    shared.live.remove(end.id);
                }
                Committed::Ended(end, at) if end.status == TaskStatus::Pending => {
                    self.ended(&end, at);
                    shared.admission.returned();
                    if end.set_aside {
                        shared.admission.set_aside(end.seq);
                    }
                    shared.live.remove(end.id);
                    if let Some(pause) = end.pause {
                        self.wait(Due::After(end.seq, pause));
                    }
                }
                Committed::Ended(end, at) => {
                    self.ended(&end, at);
                    shared.admission.ended();
                    shared.live.remove(end.id);
                    shared.waiters.wake(end.id);
                }
            }
        }
    }
}
