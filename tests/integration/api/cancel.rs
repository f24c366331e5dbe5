//! `DELETE /tasks/{id}`.

use serde_json::{Value, json};

use crate::common::{Server, dummy, endless, run_sql};

#[tokio::test]
async fn a_pending_task_is_cancelled_at_once_and_never_runs() {
    let server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(dummy(0.0)).await;

    let answer = server.delete(&format!("/tasks/{pending}")).await;
    assert_eq!(answer.status, 200, "{answer}");
    let expected = json!({
        "task_id": pending,
        "status": "cancelled",
        "message": "Task cancelled successfully",
    });
    assert_eq!(answer.body, expected);
    let task = server.wait_for(&pending, "cancelled").await;
    assert_eq!(task["message"], "Task cancelled by user");
    assert_eq!(task["started_at"], Value::Null);
    assert_eq!(task["attempt"], 0);
    assert_eq!(server.task(&running).await["status"], "running", "the other task continues");
}

#[tokio::test]
async fn a_running_task_ends_cancelled_and_says_when_that_was_asked() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    let answer = server.delete(&format!("/tasks/{id}")).await;
    assert_eq!(answer.status, 200, "{answer}");
    let task = server.wait_for(&id, "cancelled").await;
    assert_eq!(task["message"], "Task cancelled by user");
    assert!(task["cancel_requested_at"].is_string(), "{task:#}");
    assert_eq!(task["result"], Value::Null);
}

#[tokio::test]
async fn cancelling_a_finished_task_says_how_it_ended() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    let answer = server.delete(&format!("/tasks/{id}")).await;
    assert!(answer.error(409).contains("completed"), "{answer}");
    assert_eq!(server.task(&id).await["status"], "completed");
}

#[tokio::test]
async fn cancelling_twice_says_that_the_task_is_cancelled_already() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    let first = server.delete(&format!("/tasks/{id}")).await;
    assert_eq!(first.status, 200, "{first}");
    let second = server.delete(&format!("/tasks/{id}")).await;
    assert!(second.error(409).contains("cancelled"), "{second}");
}

#[tokio::test]
async fn two_clients_may_cancel_the_same_task_at_the_same_moment() {
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    let path = format!("/tasks/{id}");
    let (one, other) = tokio::join!(server.delete(&path), server.delete(&path));
    for answer in [&one, &other] {
        assert!([200, 202, 409].contains(&answer.status), "{answer}");
    }
    server.wait_for(&id, "cancelled").await;
}

#[tokio::test]
async fn cancelling_an_unknown_task_is_not_found() {
    let server = Server::start(&[]);
    let answer = server.delete("/tasks/01890a5d-ac96-774b-bcce-b302099a8057").await;
    assert_eq!(answer.error(404), "Task not found");
}

#[tokio::test]
async fn a_running_task_that_nobody_here_runs_is_not_asked_for_without_end() {
    let server = Server::start(&[]);
    let mut body = dummy(0.0);
    body["run_at"] = "2999-01-01T00:00:00Z".into();
    let id = server.submit(body).await;
    let running = "UPDATE tasks SET status = 'running', started_at = created_at, due_at = NULL";
    run_sql(&server.folder().join("tasks.db"), &[running]).await;
    let answer = server.delete(&format!("/tasks/{id}")).await;
    assert!(answer.error(503).contains("try again"), "{answer}");
    let answer = server.post("/tasks/cancel?status=running", &json!({})).await;
    assert_eq!(answer.body, json!({ "matched": 1, "cancelled": 0, "requested": 0 }));
}

#[tokio::test]
async fn a_task_whose_cancellation_was_accepted_never_completes() {
    let server = Server::start(&["--max-running", "4"]);
    for _ in 0..20 {
        // So short that the cancellation often coincides with the end.
        let id = server.submit(dummy(0.0)).await;
        let answer = server.delete(&format!("/tasks/{id}")).await;
        let expected = match answer.status {
            200 | 202 => "cancelled",
            _ => {
                assert!(answer.error(409).contains("completed"), "{answer}");
                "completed"
            }
        };
        server.wait_for(&id, expected).await;
    }
}

#[tokio::test]
async fn a_cancelled_tokenize_leaves_no_file() {
    let server = Server::start(&[]);
    server.write("input.txt", "some text");
    let id = server
        .submit(json!({
            "task_type": "tokenize",
            "input_file_path": "input.txt",
            "output_file_path": "tokens.json",
            "parameters": { "sleep_duration": 3600 },
        }))
        .await;
    server.until_running(&id).await;
    server.delete(&format!("/tasks/{id}")).await;
    server.wait_for(&id, "cancelled").await;
    for entry in std::fs::read_dir(server.folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.ends_with(".part") && name != "tokens.json", "left over: {name}");
    }
}
