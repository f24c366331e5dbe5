//! `run_at`: tasks that wait for a time.

use serde_json::{Value, json};

use crate::common::{Server, dummy};

fn at(time: &str) -> Value {
    let mut body = dummy(0.0);
    body["run_at"] = json!(time);
    body
}

/// Time `seconds` from now. Server and test share the clock.
fn in_seconds(seconds: i64) -> String {
    let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    format!("{time:.6}")
}

#[tokio::test]
async fn a_task_waits_for_its_time_and_says_so() {
    let mut server = Server::start(&[]);
    let time = in_seconds(3600);
    let id = server.submit(at(&time)).await;
    let task = server.task(&id).await;
    assert_eq!((&task["status"], &task["run_at"]), (&json!("pending"), &json!(time)));
    assert_eq!(task["waiting_because"], format!("scheduled for {time}"));
    server.restart(&[]);
    assert_eq!(server.task(&id).await["status"], "pending");
    assert_eq!(server.delete(&format!("/tasks/{id}")).await.status, 200);
}

#[tokio::test]
async fn when_its_time_has_come_it_runs() {
    let mut server = Server::start(&[]);
    let soon = server.submit(at(&in_seconds(1))).await;
    let later = server.submit(at(&in_seconds(2))).await;
    let task = server.wait_for(&soon, "completed").await;
    assert!(task["started_at"].as_str() >= task["run_at"].as_str(), "{task:#}");
    server.restart(&[]);
    server.wait_for(&later, "completed").await;
}

#[tokio::test]
async fn a_time_that_has_passed_means_now() {
    let server = Server::start(&[]);
    for time in ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00+02:00"] {
        let id = server.submit(at(time)).await;
        server.wait_for(&id, "completed").await;
    }
}

#[tokio::test]
async fn a_time_without_offset_is_refused() {
    let server = Server::start(&[]);
    for time in [json!("2030-01-01T00:00:00"), json!("tomorrow"), json!(5)] {
        let mut body = dummy(0.0);
        body["run_at"] = time;
        let fault = server.post("/tasks", &body).await.only_fault();
        assert!(fault.contains(" body.run_at: "), "{fault}");
    }
}
