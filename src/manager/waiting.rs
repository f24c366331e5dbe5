//! Why a pending task waits, and for how long it may.

use super::Shared;
use crate::store::{MAX_POSITION, StoreError, TaskRecord};
use crate::task::{TaskStatus, TaskType};

impl Shared {
    /// Says of each pending task what it waits for, and of each ready one how many come before it.
    pub(super) async fn explain(&self, records: &mut [TaskRecord]) -> Result<(), StoreError> {
        let mut positions = None;
        for record in records {
            if record.info.status != TaskStatus::Pending {
                continue;
            }
            record.info.waiting_because = Some(self.reason(record));
            let unknown = TaskType::from_name(&record.info.task_type).is_none();
            if unknown || record.held || record.due_at.is_some() || record.is_suspect() {
                continue;
            }
            let positions = match &mut positions {
                Some(positions) => positions,
                none => none.insert(self.store.positions().await?),
            };
            // At least so many come before one that is not counted.
            let position = positions.get(&record.seq).copied().unwrap_or(MAX_POSITION + 1);
            record.info.queue_position = Some(position);
        }
        Ok(())
    }

    fn reason(&self, record: &TaskRecord) -> String {
        let info = &record.info;
        if record.held {
            return info.message.clone();
        }
        match record.due_at {
            Some(due_at) if info.run_at == Some(due_at) => {
                return format!("scheduled for {due_at}");
            }
            Some(due_at) => return format!("retry at {due_at}"),
            None => {}
        }
        let Some(task_type) = TaskType::from_name(&info.task_type) else {
            return format!("this server does not know task type `{}`", info.task_type);
        };
        if self.draining.is_cancelled() {
            return "the server is shutting down".to_owned();
        }
        let (limit, running) = (self.limits[&task_type], self.live.count(task_type.name()));
        if running >= limit && limit < self.max_running {
            return format!("{running} of {limit} {} tasks running", task_type.name());
        }
        let running = self.live.len();
        if running >= self.max_running {
            return format!("{running} of {} tasks running", self.max_running);
        }
        if record.is_suspect() {
            return "the server stopped twice while this task ran, so it waits until no other such \
                    task runs"
                .to_owned();
        }
        "about to run".to_owned()
    }
}
