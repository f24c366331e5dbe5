//! `POST /tasks/{id}/retry` and bulk retries.

use serde_json::{Value, json};

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
    let answer = server.post(&format!("/tasks/{first}/retry"), &json!({})).await;
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
        let refused = server.post(&format!("/tasks/{id}/retry"), &json!({})).await;
        assert!(refused.error(409).contains(status), "{refused}");
    }
    let unknown = "/tasks/00000000-0000-7000-8000-000000000000/retry";
    assert_eq!(server.post(unknown, &json!({})).await.error(404), "Task not found");
}

/// Submission of a task that fails until its input exists.
async fn failed(server: &Server, name: &str, tag: &str) -> String {
    let mut body = tokenize(&format!("{name}.txt"), &format!("{name}.json"));
    body["tags"] = json!({ "run": tag });
    let id = server.submit(body).await;
    server.wait_for(&id, "failed").await;
    id
}

fn counts(matched: u64, submitted: u64, conflicts: u64) -> Value {
    json!({ "matched": matched, "submitted": submitted, "conflicts": conflicts })
}

#[tokio::test]
async fn a_bulk_retry_submits_each_failed_task_once() {
    let server = Server::start(&[]);
    let mended = failed(&server, "mended", "a").await;
    let broken = failed(&server, "broken", "a").await;
    let other = failed(&server, "other", "b").await;
    let done = server.submit(json!({ "task_type": "dummy_short", "tags": { "run": "a" },
                                     "parameters": { "duration": 0, "steps": 1 } }));
    let done = done.await;
    server.wait_for(&done, "completed").await;
    server.write("mended.txt", "here now");

    let answer = server.post("/tasks/retry?tag.run=a", &json!({})).await;
    assert_eq!((answer.status, &answer.body), (200, &counts(2, 2, 0)), "{answer}");
    let second = server.task(&mended).await["retried_by"].as_str().unwrap().to_owned();
    server.wait_for(&second, "completed").await;
    let again = server.task(&broken).await["retried_by"].as_str().unwrap().to_owned();
    assert_eq!(server.wait_for(&again, "failed").await["retry_of"], broken.as_str());
    for untouched in [&other, &done] {
        assert_eq!(server.task(untouched).await["retried_by"], json!(null));
    }

    // Only the task that failed again is left, and only its last attempt.
    let answer = server.post("/tasks/retry?tag.run=a&status=failed", &json!({})).await;
    assert_eq!((answer.status, &answer.body), (200, &counts(1, 1, 0)), "{answer}");
    let third = server.task(&again).await["retried_by"].as_str().unwrap().to_owned();
    server.wait_for(&third, "failed").await;
    assert_eq!(
        server.task(&broken).await["retried_by"],
        again.as_str(),
        "that of its retry is not its own"
    );

    let list = server.get("/tasks?retried=false&status=failed").await.body;
    let left: Vec<_> = list.as_array().unwrap().iter().map(|task| &task["task_id"]).collect();
    assert_eq!(left, [third.as_str(), other.as_str()]);
    let list = server.get("/tasks?retried=true&tag.run=a").await.body;
    let retried: Vec<_> = list.as_array().unwrap().iter().map(|task| &task["task_id"]).collect();
    assert_eq!(retried, [again.as_str(), broken.as_str(), mended.as_str()]);
}

#[tokio::test]
async fn bulk_retries_at_the_same_time_submit_each_task_once() {
    let server = Server::start(&[]);
    for number in 0..30 {
        failed(&server, &format!("absent-{number}"), "a").await;
    }
    let one = server.get("/tasks?limit=1").await.body[0]["task_id"].as_str().unwrap().to_owned();
    server.post(&format!("/tasks/{one}/retry"), &json!({})).await;
    let none = json!({});
    let retry = || server.post("/tasks/retry?status=failed", &none);
    let answers = tokio::join!(retry(), retry(), retry(), retry());
    for answer in [&answers.0, &answers.1, &answers.2, &answers.3] {
        assert_eq!(answer.status, 200, "{answer}");
    }
    let list = server.get("/tasks?limit=1000").await.body;
    let mut origins: Vec<_> =
        list.as_array().unwrap().iter().filter_map(|task| task["retry_of"].as_str()).collect();
    let retries = origins.len();
    origins.sort_unstable();
    origins.dedup();
    assert_eq!(retries, origins.len(), "a task was retried twice");
    assert!(retries >= 30);
}

#[tokio::test]
async fn a_full_queue_ends_a_bulk_retry_with_what_was_done() {
    let mut server = Server::start(&[]);
    for name in ["a", "b", "c", "d", "e"] {
        failed(&server, name, "x").await;
    }
    server.kill();
    server.restart(&["--max-running", "1", "--max-pending", "3"]);
    let endless = server.submit(endless()).await;
    server.until_running(&endless).await;
    let answer = server.post("/tasks/retry?status=failed", &json!({})).await;
    assert_eq!(answer.status, 429, "{answer}");
    assert_eq!(answer.header("retry-after"), "1");
    assert!(answer.body["detail"].as_str().unwrap().contains("limit"), "{answer}");
    assert_eq!((&answer.body["matched"], &answer.body["submitted"]), (&json!(3), &json!(3)));
    server.delete(&format!("/tasks/{endless}")).await;
    server.until("/stats", |stats| stats["counts"]["pending"] == 0).await;
    let answer = server.post("/tasks/retry?status=failed", &json!({})).await;
    // Each of the five has a retry or gets one now, and the three that failed again get another.
    assert!([200, 429].contains(&answer.status), "{answer}");
    assert!(answer.body["submitted"].as_u64().unwrap() >= 2, "{answer}");
}

#[tokio::test]
async fn a_task_whose_output_is_being_written_is_a_conflict() {
    let server = Server::start(&["--max-running", "1"]);
    failed(&server, "absent", "a").await;
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    server.write("absent.txt", "here now");
    server.submit(tokenize("absent.txt", "absent.json")).await;
    let answer = server.post("/tasks/retry?tag.run=a", &json!({})).await;
    assert_eq!((answer.status, &answer.body), (200, &counts(1, 0, 1)), "{answer}");
}

#[tokio::test]
async fn a_bulk_retry_has_to_say_which_tasks() {
    let server = Server::start(&[]);
    for query in ["", "?limit=5", "?cursor=5", "?retried=true", "?colour=red", "?status=lost"] {
        let answer = server.post(&format!("/tasks/retry{query}"), &json!({})).await;
        assert_eq!(answer.status, 422, "{query}: {answer}");
    }
    let answer = server.post("/tasks/retry?status=running,pending", &json!({})).await;
    assert_eq!(answer.body, counts(0, 0, 0), "unfinished tasks are left alone: {answer}");
}

#[tokio::test]
async fn a_retry_with_an_idempotency_key_happens_once() {
    let server = Server::start(&[]);
    let id = failed(&server, "absent", "a").await;
    let retry = |id: &str, key: &'static str| {
        let request = server.request(reqwest::Method::POST, &format!("/tasks/{id}/retry"));
        server.send(request.header("idempotency-key", key))
    };
    let first = retry(&id, "once").await;
    let second = retry(&id, "once").await;
    assert_eq!((first.status, &first.body), (200, &second.body), "{first} {second}");
    let other = retry(&id, "twice").await;
    assert_ne!(other.body["task_id"], first.body["task_id"]);
    assert_eq!(server.task(&id).await["retried_by"], other.body["task_id"], "the latest");
    let another = failed(&server, "other", "a").await;
    assert_eq!(retry(&another, "once").await.status, 422, "a key belongs to one request");
}
