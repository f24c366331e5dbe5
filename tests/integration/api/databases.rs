//! Databases a server opens: only its own, and once that of the ported service.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Server, dummy, endless, refusal, run_sql};

/// Schema of the ported service's database.
const PORTED_SCHEMA: &str = "CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY, task_type TEXT NOT NULL, status TEXT NOT NULL,
    progress REAL DEFAULT 0.0, message TEXT DEFAULT '',
    created_at TEXT NOT NULL, started_at TEXT, completed_at TEXT,
    result TEXT, error TEXT, input_file_path TEXT, output_file_path TEXT,
    parameters TEXT DEFAULT '{}')";

const PORTED_ROWS: &str = r#"INSERT INTO tasks VALUES
    ('0b9f7a52-3a54-4c1e-8d7b-5f0f6a9d1e01', 'tokenize', 'completed', 100.0,
     'Task completed successfully', '2026-01-01T15:30:00.123456', '2026-01-01T15:30:01',
     '2026-01-01T15:31:01.5', '{"token_count": 3, "encoding": "cl100k_base"}', NULL,
     '/data/in.txt', '/data/out.json', '{"encoding": "cl100k_base", "sleep_duration": 60}'),
    ('0b9f7a52-3a54-4c1e-8d7b-5f0f6a9d1e02', 'dummy_short', 'failed', 40.0,
     'Task failed: boom', '2026-01-01T15:32:00.000001', '2026-01-01T15:32:00.000002',
     '2026-01-01T15:32:03', NULL, 'boom', NULL, NULL, '{}'),
    ('0b9f7a52-3a54-4c1e-8d7b-5f0f6a9d1e03', 'my_custom_task', 'running', 55.5,
     'Halfway done', '2026-01-01T15:33:00', '2026-01-01T15:33:01', NULL, NULL, NULL,
     '/data/in.txt', '/data/out.json', '{"param1": "custom"}'),
    ('0b9f7a52-3a54-4c1e-8d7b-5f0f6a9d1e04', 'dummy_long', 'pending', 0.0,
     '', '2026-01-01T15:34:00', NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#;

/// Creates a folder with a `tasks.db` of the ported service.
async fn ported_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    run_sql(&folder.path().join("tasks.db"), &[PORTED_SCHEMA, PORTED_ROWS]).await;
    folder
}

#[tokio::test]
async fn a_second_server_on_the_same_database_refuses_to_start() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    let (code, said) = refusal(server.folder(), &["--listen", "127.0.0.1:0"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("tasks.db"), "{said}");
    assert!(!said.contains("listening on"), "{said}");
    assert_eq!(said.lines().count(), 1, "one clear sentence: {said}");
    assert_eq!(server.task(&id).await["status"], "running", "the first server continues");
}

#[tokio::test]
async fn the_database_is_free_again_once_its_server_is_gone() {
    let mut server = Server::start(&[]);
    server.kill();
    server.restart(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
}

#[tokio::test]
async fn the_history_of_the_ported_service_is_imported() {
    let server = Server::start_in(ported_folder().await, &[], &[("TZ", "UTC")]);
    let tasks = server.get("/tasks").await.body;
    let ids: Vec<_> = tasks.as_array().unwrap().iter().map(|task| &task["task_id"]).collect();
    let expected = [4, 3, 2, 1].map(|n| format!("0b9f7a52-3a54-4c1e-8d7b-5f0f6a9d1e0{n}"));
    assert_eq!(ids, expected.iter().collect::<Vec<_>>());

    let done = server.task(&expected[3]).await;
    for (field, value) in [
        ("task_type", json!("tokenize")),
        ("status", json!("completed")),
        ("progress", json!(100.0)),
        ("message", json!("Task completed successfully")),
        ("created_at", json!("2026-01-01T15:30:00.123456Z")),
        ("started_at", json!("2026-01-01T15:30:01.000000Z")),
        ("completed_at", json!("2026-01-01T15:31:01.500000Z")),
        ("result", json!({ "token_count": 3, "encoding": "cl100k_base" })),
        ("error", Value::Null),
        ("input_file_path", json!("/data/in.txt")),
        ("output_file_path", json!("/data/out.json")),
        ("parameters", json!({ "encoding": "cl100k_base", "sleep_duration": 60 })),
    ] {
        assert_eq!(done[field], value, "{field} of {done:#}");
    }
    let failed = server.task(&expected[2]).await;
    assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!("boom")));
}

#[tokio::test]
async fn unfinished_tasks_of_the_ported_service_are_imported_as_failed() {
    let server = Server::start_in(ported_folder().await, &[], &[("TZ", "UTC")]);
    let failed = server.get("/tasks?status=failed").await.body;
    let failed = failed.as_array().unwrap();
    assert_eq!(failed.len(), 3, "{failed:#?}");
    for task in &failed[..2] {
        assert!(!task["error"].as_str().unwrap().is_empty(), "{task:#}");
        assert!(task["completed_at"].is_string(), "{task:#}");
    }
    assert_eq!(failed[0]["parameters"], json!({}));
    assert_eq!(failed[1]["task_type"], "my_custom_task", "a type that this server does not know");
}

#[tokio::test]
async fn the_ported_service_wrote_local_times() {
    // Five hours behind UTC.
    let server = Server::start_in(ported_folder().await, &[], &[("TZ", "EST5")]);
    let task = server.task("0b9f7a52-3a54-4c1e-8d7b-5f0f6a9d1e01").await;
    assert_eq!(task["created_at"], "2026-01-01T20:30:00.123456Z");
}

#[tokio::test]
async fn an_imported_history_is_imported_once_and_goes_on() {
    let mut server = Server::start_in(ported_folder().await, &[], &[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    server.restart(&[]);
    let tasks = server.get("/tasks").await.body;
    let tasks = tasks.as_array().unwrap();
    assert_eq!(tasks.len(), 5);
    assert_eq!(tasks[0]["task_id"], *id, "the newest");
}

#[tokio::test]
async fn a_task_of_a_type_from_tomorrow_is_listed_never_run_and_stops_nothing() {
    let mut server = Server::start(&["--max-running", "1"]);
    let blocker = server.submit(endless()).await;
    server.until_running(&blocker).await;
    let stranger = server.submit(dummy(0.0)).await;
    server.kill();
    let update = "UPDATE tasks SET task_type = 'of_tomorrow' WHERE task_type = 'dummy_short'";
    run_sql(&server.folder().join("tasks.db"), &[update]).await;
    server.restart(&["--max-running", "2"]);
    let next = server.submit(dummy(0.0)).await;
    server.wait_for(&next, "completed").await;
    let task = server.task(&stranger).await;
    assert_eq!((&task["task_type"], &task["status"]), (&json!("of_tomorrow"), &json!("pending")));
    let listed = server.get("/tasks?status=pending").await.body;
    assert_eq!(listed[0]["task_id"], *stranger, "{listed:#}");
    let answer = server.delete(&format!("/tasks/{stranger}")).await;
    assert_eq!(answer.status, 200, "{answer}");
}

#[tokio::test]
async fn a_link_to_a_database_in_use_is_in_use_too() {
    let server = Server::start(&[]);
    let other = TempDir::new().unwrap();
    let link = other.path().join("link.db");
    std::os::unix::fs::symlink(server.folder().join("tasks.db"), &link).unwrap();
    let args = ["--listen", "127.0.0.1:0", "--database", link.to_str().unwrap()];
    let (code, said) = refusal(other.path(), &args, &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("in use"), "{said}");
}

#[tokio::test]
async fn damaged_rows_and_rows_of_tomorrow_hold_up_no_others() {
    let mut server = Server::start(&["--max-running", "1"]);
    let running = server.submit(crate::common::endless()).await;
    server.until_running(&running).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(server.submit(crate::common::dummy(0.0)).await);
    }
    server.kill();
    let path = server.folder().join("tasks.db");
    for (id, change) in ids.iter().zip([
        "parameters = 'no json'",
        "parameters = '{\"steps\": 0, \"duration\": 0}'",
        "task_type = 'from_tomorrow'",
        "task_type = 'from_tomorrow', interruptions = 2",
        "interruptions = 2",
    ]) {
        let sql = format!("UPDATE tasks SET {change} WHERE id = '{id}'");
        run_sql(&path, &[&sql]).await;
    }
    run_sql(&path, &[&format!("UPDATE tasks SET status = 'cancelled' WHERE id = '{running}'")])
        .await;
    server.restart(&["--max-running", "1"]);
    for id in &ids[4..] {
        server.wait_for(id, "completed").await;
    }
    for id in &ids[1..4] {
        let task = server.task(id).await;
        assert_eq!(task["status"], "pending", "{task:#}");
        assert!(task["waiting_because"].as_str().unwrap().contains("does not know"), "{task:#}");
    }
}

#[tokio::test]
async fn a_cancelled_task_that_nobody_could_run_stays_as_it_was_after_a_restart() {
    let mut server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let id = server.submit(dummy(0.0)).await;
    server.kill();
    let spoil = format!("UPDATE tasks SET parameters = '{{\"steps\": 0}}' WHERE id = '{id}'");
    run_sql(&server.folder().join("tasks.db"), &[&spoil]).await;
    server.restart(&["--max-running", "2"]);
    let path = format!("/tasks/{id}");
    let unrunnable = |task: &Value| task["waiting_because"].to_string().contains("does not know");
    server.until(&path, unrunnable).await;
    assert_eq!(server.delete(&path).await.status, 200);
    let before = server.task(&id).await;
    assert_eq!(before["message"], "Task cancelled by user", "{before:#}");
    server.restart(&[]);
    assert_eq!(server.task(&id).await, before);
}
