//! Runs a single task without a server, for unit tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    Attempt, AttemptFolders, BlockingWork, CpuSlots, Files, LogFolder, MemoryBudget, Output,
    Progress, StateFolder, Task, TaskContext, TaskError, TaskId, TaskInfo, TaskResult, TaskStatus,
    Timestamp,
};

/// One run of a task on files in `root`.
pub(crate) struct TestRun {
    root: PathBuf,
    input: Option<String>,
    output: Option<String>,
    /// Cancel this to cancel the run.
    pub(crate) token: CancellationToken,
    /// Progress reported by the task.
    pub(crate) progress: Arc<Progress>,
    /// CPU slots for its blocking work: two.
    pub(crate) slots: CpuSlots,
    /// Memory budget for its large buffers.
    pub(crate) memory: MemoryBudget,
}

impl TestRun {
    /// Paths are relative to `root`.
    pub(crate) fn new(root: &Path, input: Option<&str>, output: Option<&str>) -> Self {
        Self {
            root: root.to_owned(),
            input: input.map(str::to_owned),
            output: output.map(str::to_owned),
            token: CancellationToken::new(),
            progress: Arc::new(Progress::new("", Timestamp::now())),
            slots: CpuSlots::new(2),
            memory: MemoryBudget::new(),
        }
    }

    /// Runs the task and, if it succeeds, publishes its output as the server does.
    pub(crate) async fn run(&self, task: Box<dyn Task>) -> TaskResult {
        let output = Arc::new(Mutex::new(None));
        let result = task.execute(self.context(Arc::clone(&output))?).await?;
        if let Some(output) = output.lock().take() {
            output.sync().map_err(TaskError::failed)?;
            output.publish().map_err(TaskError::failed)?;
        }
        Ok(result)
    }

    /// Context for a task of this run.
    pub(crate) fn context(
        &self,
        output: Arc<Mutex<Option<Output>>>,
    ) -> Result<TaskContext, TaskError> {
        let (id, epoch, now) = (TaskId::new(), 1, Timestamp::now());
        let state = Arc::new(StateFolder::open(self.root.join("state")));
        Ok(TaskContext::new(Attempt {
            info: Arc::new(TaskInfo {
                task_id: id,
                task_type: "test".to_owned(),
                status: TaskStatus::Running,
                progress: 0.0,
                message: String::new(),
                created_at: now,
                started_at: Some(now),
                completed_at: None,
                result: None,
                error: None,
                input_file_path: self.input.clone(),
                output_file_path: self.output.clone(),
                parameters: Default::default(),
                updated_at: now,
                attempt: 1,
                max_attempts: 1,
                timeout_seconds: None,
                cancel_requested_at: None,
                priority: 0,
                tags: Default::default(),
                run_at: None,
                retry_of: None,
                retried_by: None,
                queue_position: None,
                waiting_because: None,
                eta_seconds: None,
            }),
            epoch,
            parameters: Default::default(),
            token: self.token.clone(),
            progress: Arc::clone(&self.progress),
            files: Arc::new(Files::open(std::slice::from_ref(&self.root), &[])?),
            blocking: Arc::new(BlockingWork::new(self.slots.clone())),
            memory: self.memory.clone(),
            slot_wait: Arc::default(),
            output,
            ending: Arc::default(),
            folders: Arc::new(AttemptFolders::new(state, id, epoch)),
            log: LogFolder::start(self.root.join("logs"))?.log(TaskId::new(), 1),
        }))
    }
}
