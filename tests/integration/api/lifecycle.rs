//! Run, end and survival of tasks across an orderly stop.

use serde_json::{Value, json};

use crate::common::{Server, dummy, endless, tokenize};

/// Adds a field to `body`.
fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[tokio::test]
async fn a_task_out_of_time_fails_and_says_so() {
    let server = Server::start(&["--max-running", "1"]);
    let id = server.submit(with(endless(), "timeout_seconds", json!(0.25))).await;
    let task = server.wait_for(&id, "failed").await;
    let error = task["error"].as_str().unwrap();
    assert!(error.contains("0.25"), "{error}");
    assert_eq!(task["message"], format!("Task failed: {error}"));
    assert_eq!(task["result"], Value::Null);
    let next = server.submit(dummy(0.0)).await;
    server.wait_for(&next, "completed").await;
}

#[tokio::test]
async fn a_failing_task_is_tried_as_often_as_was_asked() {
    let server = Server::start(&[]);
    let body = with(endless(), "timeout_seconds", json!(0.05));
    let id = server.submit(with(body, "max_attempts", json!(2))).await;
    let task = server.wait_for(&id, "failed").await;
    assert_eq!((&task["attempt"], &task["max_attempts"]), (&json!(2), &json!(2)), "{task:#}");
}

#[tokio::test]
async fn another_attempt_finds_the_input_that_came_late() {
    let server = Server::start(&[]);
    let body = with(tokenize("late.txt", "out.json"), "max_attempts", json!(20));
    let id = server.submit(body).await;
    let failed_once = |task: &Value| task["status"] == "pending" && task["error"].is_string();
    server.until(&format!("/tasks/{id}"), failed_once).await;
    server.write("late.txt", "better late than never");
    let task = server.wait_for(&id, "completed").await;
    assert!(task["attempt"].as_u64() > Some(1), "{task:#}");
    assert_eq!(task["error"], Value::Null, "a completed task has no error: {task:#}");
}

#[tokio::test]
async fn between_attempts_a_task_is_pending_and_can_be_cancelled() {
    let server = Server::start(&[]);
    let body = with(endless(), "timeout_seconds", json!(0.05));
    let id = server.submit(with(body, "max_attempts", json!(100))).await;
    let path = format!("/tasks/{id}");
    let task = server
        .until(&path, |task| task["status"] == "pending" && task["attempt"].as_u64() > Some(0))
        .await;
    assert!(task["error"].as_str().unwrap().contains("0.05"), "{task:#}");
    assert_eq!(task["completed_at"], Value::Null);
    let answer = server.delete(&path).await;
    assert_eq!(answer.status, 200, "{answer}");
    server.wait_for(&id, "cancelled").await;
}

#[tokio::test]
async fn the_highest_priority_runs_first_and_equals_in_their_order() {
    let server = Server::start(&["--max-running", "1"]);
    let blocker = server.submit(endless()).await;
    server.until_running(&blocker).await;
    let mut submitted = Vec::new();
    for priority in [0, -5, 7, 0, 7] {
        submitted.push(server.submit(with(dummy(0.0), "priority", json!(priority))).await);
    }
    server.delete(&format!("/tasks/{blocker}")).await;
    let mut started = Vec::new();
    for (index, id) in submitted.iter().enumerate() {
        let task = server.wait_for(id, "completed").await;
        started.push((task["started_at"].as_str().unwrap().to_owned(), index));
    }
    started.sort();
    let order: Vec<_> = started.into_iter().map(|(_, index)| index).collect();
    assert_eq!(order, [2, 4, 0, 3, 1]);
}

#[tokio::test]
async fn no_more_tasks_run_at_once_than_allowed() {
    let server = Server::start(&["--max-running", "2"]);
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(server.submit(dummy(0.05)).await);
    }
    server
        .until("/tasks", |tasks| {
            let count = |status: &str| {
                tasks.as_array().unwrap().iter().filter(|task| task["status"] == status).count()
            };
            assert!(count("running") <= 2, "{tasks:#}");
            count("completed") == ids.len()
        })
        .await;
}

#[tokio::test]
async fn a_stopped_server_runs_its_tasks_again_and_charges_them_nothing() {
    let mut server = Server::start(&["--shutdown-grace", "1s"]);
    let id = server.submit(endless()).await;
    let mut task = server.until_running(&id).await;
    // A third interruption would fail the task, but an orderly stop does not count as one.
    for _ in 0..3 {
        server.terminate();
        assert_eq!(server.wait_exit().code(), Some(0));
        server.restart(&["--shutdown-grace", "1s"]);
        task = server.until_running_again(&task).await;
    }
    assert_eq!(task["attempt"], 1, "{task:#}");
}

#[tokio::test]
async fn a_stopping_server_lets_running_tasks_end_and_starts_no_others() {
    let mut server = Server::start(&["--max-running", "1", "--shutdown-grace", "60s"]);
    let running = server.submit(dummy(1.0)).await;
    server.until_running(&running).await;
    let pending = server.submit(dummy(0.0)).await;
    server.terminate();
    assert_eq!(server.wait_exit().code(), Some(0));
    server.restart(&["--max-running", "1"]);
    let task = server.wait_for(&running, "completed").await;
    assert_eq!(task["attempt"], 1, "{task:#}");
    server.wait_for(&pending, "completed").await;
}

/// Sends SIGTERM and submits until the server refuses.
async fn drain(server: &Server) {
    server.terminate();
    loop {
        let answer = server.post("/tasks", &dummy(0.0)).await;
        if answer.status != 200 {
            assert!(!answer.error(503).is_empty(), "{answer}");
            return;
        }
    }
}

#[tokio::test]
async fn a_stopping_server_takes_no_tasks_but_answers() {
    let mut server = Server::start(&["--shutdown-grace", "90s"]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    drain(&server).await;
    assert_eq!(server.task(&id).await["status"], "running");
    let ready = server.get("/health/ready").await;
    assert_eq!(ready.status, 503, "{ready}");
    let answer = server.delete(&format!("/tasks/{id}")).await;
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(server.wait_exit().code(), Some(0), "nothing is left to wait for");
    server.restart(&[]);
    assert_eq!(server.task(&id).await["status"], "cancelled");
}

#[tokio::test]
async fn a_second_signal_ends_a_stopping_server_at_once() {
    let mut server = Server::start(&["--shutdown-grace", "100000s"]);
    let id = server.submit(endless()).await;
    let before = server.until_running(&id).await;
    drain(&server).await;
    server.terminate();
    assert_eq!(server.wait_exit().code(), Some(130));
    server.restart(&[]);
    server.until_running_again(&before).await;
}

#[tokio::test]
async fn a_finished_task_looks_the_same_after_a_restart() {
    let mut server = Server::start(&[]);
    server.write("in.txt", "some text");
    let done = server.submit(tokenize("in.txt", "out.json")).await;
    let failed = server.submit(tokenize("absent.txt", "other.json")).await;
    let before =
        [server.wait_for(&done, "completed").await, server.wait_for(&failed, "failed").await];
    server.restart(&[]);
    let after = [server.task(&done).await, server.task(&failed).await];
    assert_eq!(before, after);
}
