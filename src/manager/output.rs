//! What a completed task has published, opened for reading.

use std::fs::File;
use std::sync::Arc;

use super::{OutputError, TaskManager};
use crate::task::{TaskId, TaskStatus};

impl TaskManager {
    /// Opens the output of a completed task; returns its path, as it was sent, too. What stands
    /// there is what was written there last, perhaps by a later task.
    pub(crate) async fn open_output(&self, id: TaskId) -> Result<(String, File), OutputError> {
        let (_, info) = self.state(id).await?.ok_or(OutputError::Unknown)?;
        if info.status != TaskStatus::Completed {
            return Err(OutputError::NotCompleted(info.status));
        }
        let path = info.output_file_path.ok_or(OutputError::NoPath)?;
        let files = Arc::clone(&self.shared.files);
        let opened = tokio::task::spawn_blocking(move || {
            let file = files.open_input(&path)?;
            Ok((path, file))
        });
        opened.await.unwrap_or(Err(OutputError::Panicked))
    }
}
