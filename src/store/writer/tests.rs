//! The writer by itself, with a store on a real file.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::value::{RawValue, to_raw_value};
use sqlx::Row;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::*;
use crate::store::open::{MIGRATIONS, migrate};
use crate::store::{
    AttemptEnd, Cancellation, Limits, NewTask, Opened, Store, StoredProgress, TaskRecord,
    keep_times, open,
};
use crate::store::{ListFilter, Retry, find_retries};
use crate::task::{Task, TaskContext, TaskId, TaskResult, TaskStatus, async_trait};

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
        tags: RawValue::from_string("{}".to_owned()).unwrap(),
        run_at: None,
        retry: None,
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
        pause: None,
        attempt_given_back: false,
        set_aside: false,
        cancel_requested_at: None,
    })
}

/// A store in this folder with room for three tasks, and what its observer hears.
async fn start(folder: &TempDir) -> (Store, JoinHandle<()>, UnboundedReceiver<Committed>) {
    let limits = Limits { total: 3, by_type: vec![("idle", 3)] };
    let path = folder.path().join("tasks.db");
    let Opened { store, writer, .. } = open(&path, limits, |_, _, _| {}).await.unwrap();
    let (sender, heard) = unbounded_channel();
    (store, tokio::spawn(writer.run(Arc::new(Ear(sender)))), heard)
}

/// Submits a task, which is claimed at once.
async fn claimed(store: &Store, heard: &mut UnboundedReceiver<Committed>) -> TaskRecord {
    store.place().await.unwrap().submit(Box::new(new_task())).await.unwrap();
    let Some(Committed::Claimed(record, _)) = heard.recv().await else {
        panic!("a task was not claimed though there was room");
    };
    *record
}

#[tokio::test]
async fn every_commit_waits_for_the_disk() {
    let folder = TempDir::new().unwrap();
    let limits = Limits { total: 1, by_type: Vec::new() };
    let path = folder.path().join("tasks.db");
    let mut opened = open(&path, limits, |_, _, _| {}).await.unwrap();
    let mode = sqlx::query("PRAGMA journal_mode").fetch_one(&mut opened.writer.connection).await;
    assert_eq!(mode.unwrap().get::<String, _>(0), "wal");
    // SQLite's number for FULL; one less and only checkpoints would wait.
    let level = sqlx::query("PRAGMA synchronous").fetch_one(&mut opened.writer.connection).await;
    assert_eq!(level.unwrap().get::<i64, _>(0), 2);
}

#[tokio::test]
async fn late_progress_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let (store, writer, mut heard) = start(&folder).await;
    let record = claimed(&store, &mut heard).await;
    for (epoch, percent, expected) in [(0, 10.0, 0.0), (1, 20.0, 20.0), (2, 30.0, 20.0)] {
        let message = "so far".to_owned();
        let updated_at = Timestamp::now();
        let progress = StoredProgress { seq: record.seq, epoch, percent, message, updated_at };
        store.progress(progress).await.unwrap();
        let stored = store.get(record.info.task_id).await.unwrap().unwrap().info;
        assert_eq!(stored.progress, expected, "after progress of epoch {epoch}");
    }
    store.close().await;
    writer.await.unwrap();
}

#[tokio::test]
async fn a_finished_task_keeps_its_status_whatever_the_statement() {
    let folder = TempDir::new().unwrap();
    let (store, writer, mut heard) = start(&folder).await;
    let record = claimed(&store, &mut heard).await;
    store.end(end_of(&record, 1)).await;
    assert!(matches!(heard.recv().await, Some(Committed::Ended(..))));
    store.close().await;
    writer.await.unwrap();

    let options = SqliteConnectOptions::new().filename(folder.path().join("tasks.db"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    for status in ["pending", "running", "failed", "cancelled"] {
        let update = sqlx::query("UPDATE tasks SET status = ?1").bind(status);
        let refused = update.execute(&mut database).await.unwrap_err().to_string();
        assert!(refused.contains("never changes its status"), "{refused}");
    }
}

#[tokio::test]
async fn a_database_of_an_older_schema_keeps_its_tasks() {
    for steps in 1..MIGRATIONS.len() {
        bring_up_to_date(&MIGRATIONS[..steps]).await;
    }
}

/// Opens a database of an older schema.
async fn bring_up_to_date(schema: &[(i64, &'static str, &'static str)]) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tasks.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    migrate(&path, &mut database, schema).await.unwrap();
    let statuses = ["pending", "running", "completed", "failed", "cancelled"];
    for status in statuses {
        let insert = sqlx::query(
            "INSERT INTO tasks (id, task_type, status, priority, parameters, tags, max_attempts, \
                                created_at, updated_at) \
             VALUES (?1, 'dummy_short', ?2, 0, '{}', '{}', 1, 0, 0)",
        );
        insert.bind(TaskId::new().to_string()).bind(status).execute(&mut database).await.unwrap();
    }
    database.close().await.unwrap();

    let (store, writer, _) = start(&folder).await;
    for status in ["completed", "failed", "cancelled"] {
        assert_eq!(store.counts().get(status.parse().unwrap()), 1, "{status}");
    }
    tokio::spawn(keep_times(store.clone()));
    let index = "SELECT 1 FROM sqlite_schema WHERE name = 'tasks_by_time'";
    while sqlx::query(index).fetch_optional(store.readers.points()).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await;
    writer.await.unwrap();

    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let check = sqlx::query("PRAGMA integrity_check").fetch_one(&mut database).await;
    assert_eq!(check.unwrap().get::<&str, _>(0), "ok");
    let table = sqlx::query("SELECT sql FROM sqlite_schema WHERE name = 'tasks'");
    let table = table.fetch_one(&mut database).await.unwrap();
    assert!(table.get::<&str, _>(0).contains("CHECK (status = 'pending' OR"));
    assert!(table.get::<&str, _>(0).contains("retried_by          TEXT\n) STRICT"));
    let other =
        sqlx::query("UPDATE tasks SET status = 'lost' WHERE status IN ('pending', 'running')");
    let refused = other.execute(&mut database).await.unwrap_err().to_string();
    assert!(refused.contains("CHECK constraint failed"), "{refused}");
}

#[tokio::test]
async fn retries_in_a_database_of_an_older_schema_are_found_in_the_background() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tasks.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    migrate(&path, &mut database, &MIGRATIONS[..5]).await.unwrap();
    // More than one step of the search looks at. Task 1 was retried twice, and each thousandth once.
    let insert = "WITH RECURSIVE number (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM number LIMIT 9000)
         INSERT INTO tasks (seq, id, task_type, status, priority, parameters, tags, max_attempts, \
                            created_at, updated_at, retry_of)
         SELECT seq, format('00000000-0000-7000-8000-%012x', seq), 'dummy_short', 'failed', 0, '{}', \
                '{}', 1, 0, 0, \
                CASE WHEN seq IN (5000, 8000) THEN format('00000000-0000-7000-8000-%012x', 1) \
                     WHEN seq % 1000 = 1 AND seq > 1 \
                         THEN format('00000000-0000-7000-8000-%012x', seq - 1) END
         FROM number";
    sqlx::query(insert).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    let id = |seq: i64| format!("00000000-0000-7000-8000-{seq:012x}").parse::<TaskId>().unwrap();

    let (store, writer, _) = start(&folder).await;
    let unretried = ListFilter { retried: Some(false), limit: 10, ..ListFilter::default() };
    assert!(matches!(store.list(&unretried).await, Err(StoreError::RetriesUnknown)));
    // One that was retried again before the search came to it.
    let again = NewTask { retry: Some(Retry { of: id(3000), only_first: false }), ..new_task() };
    let latest = again.id;
    store.place().await.unwrap().submit(Box::new(again)).await.unwrap();
    find_retries(store.clone()).await;
    for (seq, expected) in [(1, id(8000)), (2000, id(2001)), (8000, id(8001)), (3000, latest)] {
        let found = store.get(id(seq)).await.unwrap().unwrap().info.retried_by;
        assert_eq!(found, Some(expected), "task {seq}");
    }
    let retried = ListFilter { retried: Some(true), limit: 100, ..ListFilter::default() };
    assert_eq!(store.list(&retried).await.unwrap().records.len(), 9);
    store.close().await;
    writer.await.unwrap();

    let (store, writer, _) = start(&folder).await;
    assert!(store.list(&unretried).await.is_ok(), "the next start knows that it is done");
    store.close().await;
    writer.await.unwrap();
}

#[tokio::test]
async fn a_task_that_was_to_be_cancelled_is_cancelled_by_the_next_start() {
    let folder = TempDir::new().unwrap();
    let (store, writer, mut heard) = start(&folder).await;
    let record = claimed(&store, &mut heard).await;
    let id = record.info.task_id;
    let wish = Cancellation { id, at: Timestamp::now(), accepted_by_runner: true };
    assert_eq!(store.cancel(wish).await.unwrap(), CancelEffect::Requested);
    // For the database this is what a crash is: nobody has ended the attempt.
    store.close().await;
    writer.await.unwrap();

    let (store, writer, _) = start(&folder).await;
    let stored = store.get(id).await.unwrap().unwrap().info;
    assert_eq!(stored.status, TaskStatus::Cancelled);
    store.close().await;
    writer.await.unwrap();
}

#[tokio::test]
async fn what_an_interrupted_attempt_has_written_is_removed_by_the_next_start() {
    let folder = TempDir::new().unwrap();
    let (store, writer, mut heard) = start(&folder).await;
    let task = NewTask { output_file_path: Some("out.txt".to_owned()), ..new_task() };
    let id = task.id;
    store.place().await.unwrap().submit(Box::new(task)).await.unwrap();
    assert!(matches!(heard.recv().await, Some(Committed::Claimed(..))));
    store.close().await;
    writer.await.unwrap();

    let removed = Mutex::new(Vec::new());
    let remove = |path: &str, id, epoch| removed.lock().unwrap().push((path.to_owned(), id, epoch));
    let limits = Limits { total: 1, by_type: Vec::new() };
    open(&folder.path().join("tasks.db"), limits, remove).await.unwrap();
    assert_eq!(removed.into_inner().unwrap(), [("out.txt".to_owned(), id, 1)]);
}

#[tokio::test]
async fn a_late_end_changes_nothing_and_is_told_so() {
    let folder = TempDir::new().unwrap();
    let (store, writer, mut heard) = start(&folder).await;
    let mut records = Vec::new();
    for _ in 0..3 {
        records.push(claimed(&store, &mut heard).await);
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
