//! The writer by itself, with a store on a real file.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::to_raw_value;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedSender;

use super::*;
use crate::store::{Limits, NewTask, Opened, open};
use crate::task::{TaskContext, TaskResult, TaskStatus, async_trait};

/// A task that is never run.
struct Idle;

#[async_trait]
impl Task for Idle {
    async fn execute(self: Box<Self>, _: TaskContext) -> TaskResult {
        Ok(serde_json::Value::Null)
    }
}

/// Passes on what it hears.
struct Ear(UnboundedSender<Committed>);

impl Observer for Ear {
    fn prepare(&self, _: &TaskRecord) -> Result<Box<dyn Task>, String> {
        Ok(Box::new(Idle))
    }

    fn wrote(&self, _changes: usize, _took: Duration) {}

    fn stored(&self, _task_type: &'static str) {}

    fn wants_new_tasks(&self) -> bool {
        false
    }

    fn committed(&self, changes: Vec<Committed>) {
        for change in changes {
            let _ = self.0.send(change);
        }
    }
}

fn new_task() -> NewTask {
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
        tags: BTreeMap::new(),
        run_at: None,
        retry_of: None,
        idempotency: None,
        created_at: Timestamp::now(),
        code: Box::new(Idle),
    }
}

fn end_of(record: &TaskRecord, epoch: i64) -> Arc<AttemptEnd> {
    Arc::new(AttemptEnd {
        seq: record.seq,
        epoch,
        id: record.info.task_id,
        status: TaskStatus::Completed,
        progress: 100.0,
        message: String::new(),
        result: None,
        error: None,
        due_at: None,
        attempt_given_back: false,
        cancel_requested_at: None,
    })
}

#[tokio::test]
async fn a_late_end_changes_nothing_and_is_told_so() {
    let folder = TempDir::new().unwrap();
    let limits = Limits { total: 3, by_type: vec![("idle", 3)] };
    let path = folder.path().join("tasks.db");
    let Opened { store, writer, .. } = open(&path, limits, |_, _, _| {}).await.unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let writer = tokio::spawn(writer.run(Arc::new(Ear(sender))));
    let mut records = Vec::new();
    for _ in 0..3 {
        store.place().await.unwrap().submit(new_task()).await.unwrap();
        let Some(Committed::Claimed(record, _)) = heard.recv().await else {
            panic!("a task was not claimed though there was room");
        };
        records.push(record);
    }

    // As one batch, so that one statement meets all three.
    let epochs = [1, 0, 1];
    let ends = records.iter().zip(epochs).map(|(record, epoch)| store.end(end_of(record, epoch)));
    futures_util::future::join_all(ends).await;
    let mut owned = HashMap::new();
    while owned.len() < 3 {
        match heard.recv().await {
            Some(Committed::Ended(end, _)) => owned.insert(end.seq, true),
            Some(Committed::Disowned(end)) => owned.insert(end.seq, false),
            _ => panic!("something else than the three ends was told"),
        };
    }
    for (record, epoch) in records.iter().zip(epochs) {
        let stored = store.get(record.info.task_id).await.unwrap().unwrap().info;
        let expected = if epoch == 1 { TaskStatus::Completed } else { TaskStatus::Running };
        assert_eq!((stored.status, owned[&record.seq]), (expected, epoch == 1));
    }
    store.close().await;
    writer.await.unwrap();
}
