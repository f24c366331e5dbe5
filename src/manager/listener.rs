//! Keeps the manager's memory in step with the database: counts, live tasks and those who wait all
//! follow from what was committed.

use std::sync::Arc;

use super::due::Due;
use super::{Shared, runner};
use crate::store::{AttemptEnd, Committed, Observer, TaskRecord};
use crate::task::{Task, TaskStatus};

/// Follows what the store commits.
pub(super) struct Listener(pub(super) Arc<Shared>);

impl Listener {
    fn wait(&self, due: Due) {
        // Without a receiver the server is on its way down.
        let _ = self.0.due.send(due);
    }
}

impl Observer for Listener {
    fn prepare(&self, record: &TaskRecord) -> Result<Box<dyn Task>, String> {
        self.0.parse(&record.info)
    }

    fn committed(&self, changes: Vec<Committed>) {
        let shared = &self.0;
        for change in changes {
            match change {
                Committed::Refused => shared.admission.left(),
                Committed::Claimed(record, task) => {
                    shared.admission.began();
                    runner::start(shared, *record, task);
                }
                Committed::Scheduled(seq, time) => self.wait(Due::At(seq, time)),
                Committed::Cancelled(id, seq) => {
                    shared.admission.left();
                    self.wait(Due::Never(seq));
                    shared.waiters.wake(id);
                }
                Committed::NotEnded(end, error) => runner::end_again(shared, end, &error),
                Committed::Disowned(end) => {
                    // Cannot happen while one server owns the database; then the task is not ours.
                    tracing::error!(task.id = %end.id, "the end of an attempt found its task in other hands");
                    shared.live.remove(end.id);
                }
                Committed::Ended(end) if end.status == TaskStatus::Pending => {
                    ended(&end);
                    shared.admission.returned();
                    shared.live.remove(end.id);
                    if let Some(pause) = end.pause {
                        self.wait(Due::After(end.seq, pause));
                    }
                }
                Committed::Ended(end) => {
                    ended(&end);
                    shared.admission.ended();
                    shared.live.remove(end.id);
                    shared.waiters.wake(end.id);
                }
            }
        }
    }
}

fn ended(end: &AttemptEnd) {
    tracing::debug!(task.id = %end.id, status = end.status.name(), "ended");
}
