//! Recovery after SIGKILL.

use serde_json::json;

use crate::common::{Server, dummy, endless, tokenize};

#[tokio::test]
async fn ten_running_tasks_survive_a_crash() {
    let mut server = Server::start(&[]);
    let body = json!({ "task_type": "dummy_short", "parameters": { "duration": 3, "steps": 10 } });
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(server.submit(body.clone()).await);
    }
    server.until("/tasks?status=running", |tasks| tasks.as_array().unwrap().len() == 10).await;
    server.kill();
    server.restart(&[]);
    for id in &ids {
        let task = server.wait_for(id, "completed").await;
        assert_eq!(task["attempt"], 1, "a crash uses up no attempt: {task:#}");
        assert_eq!(task["result"]["steps_completed"], 10);
    }
    assert_eq!(server.get("/tasks").await.body.as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn accepted_tasks_survive_a_crash_in_the_very_next_moment() {
    let mut server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    let before = server.until_running(&running).await;
    let mut pending = Vec::new();
    for _ in 0..5 {
        pending.push(server.submit(dummy(0.0)).await);
    }
    server.kill();
    server.restart(&[]);
    for id in &pending {
        server.wait_for(id, "completed").await;
    }
    server.until_running_again(&before).await;
}

#[tokio::test]
async fn the_third_crash_under_a_task_is_its_last() {
    let mut server = Server::start(&[]);
    let id = server.submit(endless()).await;
    for _ in 0..3 {
        server.until_running(&id).await;
        server.kill();
        server.restart(&[]);
    }
    let task = server.wait_for(&id, "failed").await;
    let error = task["error"].as_str().unwrap();
    assert!(error.contains('3'), "{error}");
    assert_eq!(task["message"], format!("Task failed: {error}"));
}

#[tokio::test]
async fn suspects_run_one_at_a_time() {
    let mut server = Server::start(&[]);
    let first = server.submit(endless()).await;
    let second = server.submit(endless()).await;
    for _ in 0..2 {
        server.until_running(&first).await;
        server.until_running(&second).await;
        server.kill();
        server.restart(&[]);
    }
    let innocent = server.submit(dummy(0.0)).await;
    server.wait_for(&innocent, "completed").await;
    let running =
        server.until("/tasks?status=running", |tasks| !tasks.as_array().unwrap().is_empty()).await;
    assert_eq!(running.as_array().unwrap().len(), 1, "{running:#}");
    assert_eq!(server.get("/tasks?status=pending").await.body.as_array().unwrap().len(), 1);
    let running = running[0]["task_id"].as_str().unwrap();
    assert_eq!(server.delete(&format!("/tasks/{running}")).await.status, 200);
    server.until_running(if running == first { &second } else { &first }).await;
}

#[tokio::test]
async fn a_cancelled_task_stays_cancelled_after_a_crash() {
    let mut server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    let pending = server.submit(endless()).await;
    for id in [&pending, &running] {
        let answer = server.delete(&format!("/tasks/{id}")).await;
        assert_eq!(answer.status, 200, "{answer}");
    }
    server.kill();
    server.restart(&[]);
    for id in [&pending, &running] {
        assert_eq!(server.task(id).await["status"], "cancelled");
    }
}

#[tokio::test]
async fn a_crash_leaves_no_half_written_output() {
    let mut server = Server::start(&[]);
    server.write("in.txt", "some text\n".repeat(20_000));
    let mut body = tokenize("in.txt", "results/out.json");
    body["parameters"] = json!({ "sleep_duration": 3600 });
    let id = server.submit(body).await;
    server.until_running(&id).await;
    server.kill();
    assert!(!server.folder().join("results/out.json").exists());
    server.restart(&["--max-running", "1"]);
    server.delete(&format!("/tasks/{id}")).await;
    server.wait_for(&id, "cancelled").await;
    let left: Vec<_> = std::fs::read_dir(server.folder().join("results"))
        .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
        .unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}
