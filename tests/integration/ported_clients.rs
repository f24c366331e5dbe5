//! Replayed requests of clients of the ported service, which work without a change.

use crate::common::{Server, dummy, endless, tokenize};
use serde_json::{Value, json};

/// Task fields known to those clients.
const PORTED_FIELDS: [&str; 13] = [
    "task_id",
    "task_type",
    "status",
    "progress",
    "message",
    "created_at",
    "started_at",
    "completed_at",
    "result",
    "error",
    "input_file_path",
    "output_file_path",
    "parameters",
];

#[tokio::test]
async fn the_root_says_that_the_service_is_well() {
    let server = Server::start(&[]);
    let answer = server.get("/").await;
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(answer.body, json!({ "status": "ok", "service": "task-server" }));
}

#[tokio::test]
async fn a_task_is_submitted_and_polled_to_its_end() {
    let server = Server::start(&[]);
    let answer = server.post("/tasks", &dummy(0.1)).await;
    assert_eq!(answer.status, 200, "{answer}");
    let id = answer.body["task_id"].as_str().unwrap();
    let expected =
        json!({ "task_id": id, "status": "pending", "message": "Task submitted successfully" });
    assert_eq!(answer.body, expected);

    let task = server
        .until(&format!("/tasks/{id}"), |task| {
            for field in PORTED_FIELDS {
                assert!(task.get(field).is_some(), "no `{field}` in {task:#}");
            }
            assert!(task["progress"].is_f64(), "{task:#}");
            !["pending", "running"].contains(&task["status"].as_str().unwrap())
        })
        .await;
    assert_eq!(task["status"], "completed", "{task:#}");
    assert_eq!(task["progress"], 100.0);
    assert_eq!(task["message"], "Task completed successfully");
    assert_eq!(task["error"], Value::Null);
    let result =
        json!({ "message": "Dummy task completed", "steps_completed": 1, "duration": 0.1 });
    assert_eq!(task["result"], result);
    for field in ["created_at", "started_at", "completed_at"] {
        assert!(task[field].as_str().unwrap().ends_with('Z'), "{task:#}");
    }
}

#[tokio::test]
async fn a_submission_without_parameters_gets_the_defaults() {
    let server = Server::start(&[]);
    let id = server.submit(json!({ "task_type": "dummy_long" })).await;
    let task = server.until_running(&id).await;
    assert_eq!(task["parameters"], json!({ "duration": 30, "steps": 10 }));
    assert_eq!(task["message"], "Task is running");
    assert_eq!(task["input_file_path"], Value::Null);
}

#[tokio::test]
async fn the_current_task_is_null_until_there_is_one() {
    let server = Server::start(&["--max-running", "1"]);
    let idle = server.get("/tasks/current/info").await;
    assert_eq!((idle.status, idle.text.as_str()), (200, "null"), "{idle}");

    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(endless()).await;
    let current = server.get("/tasks/current/info").await.body;
    assert_eq!(current["task_id"], *running, "the running one comes first: {current:#}");
    assert_eq!(current["status"], "running");

    server.delete(&format!("/tasks/{pending}")).await;
    server.delete(&format!("/tasks/{running}")).await;
    server.wait_for(&running, "cancelled").await;
    let idle = server.get("/tasks/current/info").await;
    assert_eq!((idle.status, idle.text.as_str()), (200, "null"), "{idle}");
}

#[tokio::test]
async fn the_list_is_an_array_with_the_newest_first() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/tasks").await.body, json!([]));
    let mut submitted = Vec::new();
    for _ in 0..3 {
        submitted.insert(0, server.submit(dummy(0.0)).await);
    }
    let answer = server.get("/tasks").await;
    assert_eq!(answer.status, 200, "{answer}");
    let listed: Vec<_> =
        answer.body.as_array().unwrap().iter().map(|task| &task["task_id"]).collect();
    assert_eq!(listed, submitted.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_text_is_tokenized_into_a_file() {
    let server = Server::start(&[]);
    let text = "Hello, world! Grüße aus München. <|endoftext|>\n";
    server.write("input.txt", text);
    let input = server.folder().join("input.txt").display().to_string();
    let output = server.folder().join("results/tokens.json").display().to_string();
    let id = server.submit(tokenize(&input, &output)).await;
    let task = server.wait_for(&id, "completed").await;

    let tokens = tiktoken_rs::cl100k_base().unwrap().encode_ordinary(text);
    let expected = json!({
        "message": "Tokenization completed",
        "input_file": input,
        "output_file": output,
        "char_count": text.chars().count(),
        "token_count": tokens.len(),
        "encoding": "cl100k_base",
    });
    assert_eq!(task["result"], expected);
    let written: Value = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    let expected = json!({
        "input_file": input,
        "char_count": text.chars().count(),
        "token_count": tokens.len(),
        "tokens": tokens,
        "encoding": "cl100k_base",
    });
    assert_eq!(written, expected);
}

#[tokio::test]
async fn a_running_task_is_cancelled() {
    let server = Server::start(&[]);
    let id = server.submit(json!({ "task_type": "dummy_very_long" })).await;
    server.until_running(&id).await;
    let answer = server.delete(&format!("/tasks/{id}")).await;
    assert_eq!(answer.status, 200, "{answer}");
    let expected = json!({
        "task_id": id,
        "status": "cancelled",
        "message": "Task cancelled successfully",
    });
    assert_eq!(answer.body, expected);
    let task = server.task(&id).await;
    assert_eq!(task["status"], "cancelled");
    assert_eq!(task["message"], "Task cancelled by user");
}

#[tokio::test]
async fn an_exclusive_server_takes_one_task_at_a_time() {
    let server = Server::start(&["--exclusive"]);
    let first = server.submit(endless()).await;
    let refused = server.post("/tasks", &dummy(0.0)).await;
    assert_eq!(refused.status, 409, "{refused}");
    assert_eq!(refused.body, json!({ "detail": format!("A task is already running: {first}") }));

    server.delete(&format!("/tasks/{first}")).await;
    server.wait_for(&first, "cancelled").await;
    let second = server.submit(dummy(0.0)).await;
    server.wait_for(&second, "completed").await;
    let third = server.submit(dummy(0.0)).await;
    server.wait_for(&third, "completed").await;
}

#[tokio::test]
async fn an_unknown_task_is_not_found() {
    let server = Server::start(&[]);
    let path = "/tasks/7b0d8f5e-6a1c-4b8e-9a53-0f0d6a0a6a11";
    for answer in [server.get(path).await, server.delete(path).await] {
        assert_eq!(answer.status, 404, "{answer}");
        assert_eq!(answer.body, json!({ "detail": "Task not found" }));
    }
}
