//! The engine by itself: its durability, its schema, and its search of older histories.

use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;

use super::schema::migrate;
use super::*;
use crate::store::testing::{self, Started, new_task};
use crate::store::{AttemptEnd, Committed, ListFilter, NewTask, Retry, StoreError};
use crate::task::TaskStatus;

#[tokio::test]
async fn every_commit_waits_for_the_disk() {
    let folder = TempDir::new().unwrap();
    let limits = Limits::of(1, &[]);
    let path = folder.path().join("tasks.db");
    let (queue, _changes) = Queue::new();
    let mut opened = open(&path, &limits, |_, _, _| {}, &queue).await.unwrap();
    let mode = sqlx::query("PRAGMA journal_mode").fetch_one(&mut opened.write.connection).await;
    assert_eq!(mode.unwrap().get::<String, _>(0), "wal");
    // SQLite's number for FULL; one less and only checkpoints would wait.
    let level = sqlx::query("PRAGMA synchronous").fetch_one(&mut opened.write.connection).await;
    assert_eq!(level.unwrap().get::<i64, _>(0), 2);
}

#[tokio::test]
async fn a_finished_task_keeps_its_status_whatever_the_statement() {
    let folder = TempDir::new().unwrap();
    let mut started = Started::start(&folder).await;
    let record = started.claimed().await;
    let end = AttemptEnd {
        status: TaskStatus::Completed,
        ..AttemptEnd::pending(record.seq, 1, record.info.task_id)
    };
    testing::end(&started.store, Arc::new(end)).await.unwrap();
    assert!(matches!(started.heard.recv().await, Some(Committed::Ended(..))));
    started.stop().await;

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

    let started = Started::start(&folder).await;
    for status in ["completed", "failed", "cancelled"] {
        assert_eq!(started.store.reads.counts().get(status.parse().unwrap()), 1, "{status}");
    }
    tokio::spawn(started.store.clone().upkeep(None));
    let index = "SELECT 1 FROM sqlite_schema WHERE name = 'tasks_by_time'";
    while sqlx::query(index)
        .fetch_optional(started.reads().readers.points())
        .await
        .unwrap()
        .is_some()
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    started.stop().await;

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

    let started = Started::start(&folder).await;
    let unretried = ListFilter { retried: Some(false), limit: 10, ..ListFilter::default() };
    assert!(matches!(started.store.reads.list(&unretried).await, Err(StoreError::RetriesUnknown)));
    // One that was retried again before the search came to it.
    let again = NewTask { retry: Some(Retry { of: id(3000), only_first: false }), ..new_task() };
    let latest = again.id;
    started.submit(again).await;
    upkeep::backfill_retries(started.reads(), &started.store.queue).await;
    for (seq, expected) in [(1, id(8000)), (2000, id(2001)), (8000, id(8001)), (3000, latest)] {
        let found = started.store.reads.get(id(seq)).await.unwrap().unwrap().info.retried_by;
        assert_eq!(found, Some(expected), "task {seq}");
    }
    let retried = ListFilter { retried: Some(true), limit: 100, ..ListFilter::default() };
    assert_eq!(started.store.reads.list(&retried).await.unwrap().records.len(), 9);
    started.stop().await;

    let started = Started::start(&folder).await;
    assert!(
        started.store.reads.list(&unretried).await.is_ok(),
        "the next start knows that it is done"
    );
    started.stop().await;
}
