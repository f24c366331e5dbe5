//! `POST /tasks/{id}/retry`: once more, please.

use serde_json::json;

use crate::common::{Server, endless, tokenize};

#[tokio::test]
async fn a_retry_is_a_new_task_of_the_same_kind() {
    let server = Server::start(&[]);
    let mut body = tokenize("late.txt", "out.json");
    body["priority"] = json!(5);
    body["tags"] = json!({ "plate": "7" });
    body["timeout_seconds"] = json!(60.0);
    let first = server.submit(body).await;
    server.wait_for(&first, "failed").await;
    server.write("late.txt", "here now");
    let answer = server.post(&format!("/tasks/{first}/retry"), &json!(null)).await;
    assert_eq!(answer.status, 200, "{answer}");
    let second = answer.body["task_id"].as_str().unwrap().to_owned();
    assert_ne!(second, first);
    assert_eq!(answer.header("location"), format!("/tasks/{second}"));
    let task = server.wait_for(&second, "completed").await;
    let old = server.task(&first).await;
    assert_eq!(task["retry_of"], json!(first));
    for field in [
        "task_type",
        "parameters",
        "input_file_path",
        "output_file_path",
        "priority",
        "tags",
        "timeout_seconds",
        "max_attempts",
    ] {
        assert_eq!(task[field], old[field], "{field}");
    }
    assert_eq!(old["status"], "failed");
}

#[tokio::test]
async fn an_unfinished_task_cannot_be_retried() {
    let server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(endless()).await;
    for (id, status) in [(running, "running"), (pending, "pending")] {
        let refused = server.post(&format!("/tasks/{id}/retry"), &json!(null)).await;
        assert!(refused.error(409).contains(status), "{refused}");
    }
    let unknown = "/tasks/00000000-0000-7000-8000-000000000000/retry";
    assert_eq!(server.post(unknown, &json!(null)).await.error(404), "Task not found");
}
