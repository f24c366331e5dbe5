//! Parts that tests of the store share.

use std::path::Path;

use serde_json::value::{RawValue, to_raw_value};
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::task::{Task, TaskContext, TaskResult, Timestamp, async_trait};

/// A task that is never run.
pub(super) struct Idle;

#[async_trait]
impl Task for Idle {
    async fn execute(self: Box<Self>, _: TaskContext) -> TaskResult {
        Ok(serde_json::Value::Null)
    }
}

/// Passes on what is committed.
pub(super) struct Ear(pub(super) UnboundedSender<Committed>);

impl Observer for Ear {
    fn committed(&self, commit: Commit) {
        for change in commit.changes {
            // A test may have heard enough.
            let _ = self.0.send(change);
        }
    }
}

/// Ends an attempt and waits for the result.
pub(super) async fn end(store: &Store, end: Arc<AttemptEnd>) -> Result<(), StoreError> {
    let (answer, answered) = oneshot::channel();
    // The test may have stopped waiting.
    store.end(end, |result| drop(answer.send(result))).await;
    answered.await.unwrap()
}

pub(super) fn new_task() -> NewTask {
    NewTask {
        id: TaskId::new(),
        task_type: "idle",
        parameters: to_raw_value(&()).unwrap(),
        input_file_path: None,
        output_file_path: None,
        output_key: None,
        priority: 0,
        timeout_seconds: None,
        max_attempts: 1,
        tags: RawValue::from_string("{}".to_owned()).unwrap(),
        run_at: None,
        retry: None,
        idempotency: None,
        created_at: Timestamp::now(),
        code: Box::new(Idle),
        reservation: None,
    }
}

/// A store at work.
pub(super) struct Started {
    pub(super) store: Store,
    pub(super) writer: JoinHandle<()>,
    pub(super) heard: UnboundedReceiver<Committed>,
}

impl Started {
    /// Opens this file, with slots for that many tasks.
    pub(super) async fn open(path: &Path, slots: usize) -> Self {
        let limits = Limits::of(slots, &[("idle", slots)]);
        let Opened { store, writer, .. } = open(path, limits, |_, _, _| {}).await.unwrap();
        let (sender, heard) = unbounded_channel();
        let writer = tokio::spawn(writer.run(Arc::new(Ear(sender))));
        Self { store, writer, heard }
    }

    /// A store in this folder with slots for three tasks.
    pub(super) async fn start(folder: &TempDir) -> Self {
        Self::open(&folder.path().join("tasks.db"), 3).await
    }

    pub(super) async fn submit(&self, task: NewTask) {
        let permit = self.store.queue_permit().await.unwrap();
        permit.submit(Box::new(task)).await.unwrap().unwrap();
    }

    /// Submits a task, which is claimed at once.
    pub(super) async fn claimed(&mut self) -> TaskRecord {
        self.submit(new_task()).await;
        let Some(Committed::Claimed { record, .. }) = self.heard.recv().await else {
            panic!("a task was not claimed though there was a free slot");
        };
        *record
    }

    pub(super) async fn stop(self) {
        self.store.close().await;
        self.writer.await.unwrap();
    }

    /// The reading half of the engine.
    pub(super) fn reads(&self) -> &sqlite::ReadHalf {
        &self.store.reads
    }
}
