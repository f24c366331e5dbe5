//! Keeps the manager's memory in step with the database: counts, live tasks and those who wait all
//! follow from what was committed.

use std::sync::Arc;

use super::due::Due;
use super::live::LiveTask;
use super::{Shared, runner};
use crate::store::{Committed, Observer, TaskRecord};
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
                    let live = Arc::new(LiveTask::new(*record));
                    shared.live.insert(Arc::clone(&live));
                    tokio::spawn(runner::run(Arc::clone(shared), live, task));
                }
                Committed::Scheduled(seq, time) => self.wait(Due::At(seq, time)),
                Committed::Cancelled(id, seq) => {
                    shared.admission.left();
                    self.wait(Due::Never(seq));
                    shared.waiters.wake(id);
                }
                Committed::Ended(end) if end.status == TaskStatus::Pending => {
                    shared.admission.returned();
                    shared.live.remove(end.id);
                    if let Some(due_at) = end.due_at {
                        self.wait(Due::stored(end.seq, due_at, None));
                    }
                }
                Committed::Ended(end) => {
                    shared.admission.ended();
                    shared.live.remove(end.id);
                    shared.waiters.wake(end.id);
                }
            }
        }
    }
}
