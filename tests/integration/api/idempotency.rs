//! `Idempotency-Key`: one task however often a submission is repeated.

use std::collections::HashSet;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::{Answer, Server, dummy, endless, tokenize};

async fn submit(server: &Server, key: &str, body: &Value) -> Answer {
    let request = server.request(Method::POST, "/tasks").header("idempotency-key", key);
    server.send(request.json(body)).await
}

fn id(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer}");
    assert_eq!(answer.body["status"], "pending", "{answer}");
    answer.body["task_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_same_key_and_body_is_the_same_task() {
    let mut server = Server::start(&[]);
    let first = submit(&server, "\"one\"", &dummy(0.0)).await;
    let task = id(&first);
    server.wait_for(&task, "completed").await;
    let respelt =
        "{ \"parameters\": {\"steps\": 1, \"duration\": 0.0},\n \"task_type\": \"dummy_short\" }";
    let request = server
        .request(Method::POST, "/tasks")
        .header("idempotency-key", "one")
        .header("content-type", "application/json")
        .body(respelt);
    let again = server.send(request).await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("location"), first.header("location"));
    server.kill();
    server.restart(&[]);
    assert_eq!(id(&submit(&server, "one", &dummy(0.0)).await), task);
    assert_ne!(id(&submit(&server, "two", &dummy(0.0)).await), task);
    assert_eq!(server.get("/tasks").await.body.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let server = Server::start(&[]);
    id(&submit(&server, "key", &dummy(0.0)).await);
    let refused = submit(&server, "key", &dummy(1.0)).await;
    assert!(refused.error(422).contains("another body"), "{refused}");
}

#[tokio::test]
async fn racing_submissions_with_fifty_keys_make_fifty_tasks() {
    let server = Server::start(&[]);
    let send = |number: usize| {
        let server = &server;
        async move { id(&submit(server, &format!("key {}", number % 50), &dummy(0.0)).await) }
    };
    let mut ids = vec![HashSet::new(); 50];
    for round in 0..10 {
        let answers = join_all((0..100).map(|number| send(round * 100 + number))).await;
        for (number, id) in answers.into_iter().enumerate() {
            ids[number % 50].insert(id);
        }
    }
    assert!(ids.iter().all(|ids| ids.len() == 1), "{ids:?}");
    assert_eq!(server.get("/tasks?limit=1000").await.body.as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn a_replay_comes_before_every_limit() {
    let server = Server::start(&["--exclusive"]);
    let task = id(&submit(&server, "mine", &endless()).await);
    assert_eq!(submit(&server, "other", &endless()).await.status, 409);
    assert_eq!(id(&submit(&server, "mine", &endless()).await), task);
    let body = endless();
    let answers = join_all((0..20).map(|_| submit(&server, "mine", &body))).await;
    assert!(answers.iter().all(|answer| id(answer) == task));
}

#[tokio::test]
async fn a_refusal_is_not_remembered() {
    let server = Server::start(&["--max-running", "1"]);
    let blocker = server.submit(endless()).await;
    server.until_running(&blocker).await;
    server.write("in.txt", "text");
    let first = server.submit(tokenize("in.txt", "out.json")).await;
    assert_eq!(submit(&server, "key", &tokenize("in.txt", "out.json")).await.status, 409);
    server.delete(&format!("/tasks/{first}")).await;
    id(&submit(&server, "key", &tokenize("in.txt", "out.json")).await);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let server = Server::start(&[]);
    for key in ["", "\"\"", &"k".repeat(256)] {
        let fault = submit(&server, key, &dummy(0.0)).await.only_fault();
        assert!(fault.contains("header.idempotency-key"), "{fault}");
    }
    let without = server.post("/tasks", &json!({ "task_type": "dummy_short" })).await;
    assert_eq!(without.status, 200);
}

#[tokio::test]
async fn a_key_outlives_its_task() {
    let mut server = Server::start(&["--retention", "1s"]);
    let first = submit(&server, "key", &dummy(0.0)).await;
    let task = id(&first);
    server.until("/tasks", |tasks| tasks.as_array().unwrap().is_empty()).await;
    assert_eq!(server.get(&format!("/tasks/{task}")).await.status, 404);
    for _ in 0..2 {
        let again = submit(&server, "key", &dummy(0.0)).await;
        assert_eq!(again.body, first.body, "{again}");
        let other = submit(&server, "key", &dummy(1.0)).await;
        assert!(other.error(422).contains("another body"), "{other}");
        server.restart(&["--retention", "1s"]);
    }
    assert_eq!(server.get("/tasks").await.body, json!([]));
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let mut server = Server::start(&[]);
    let first = id(&submit(&server, "key", &dummy(0.0)).await);
    server.wait_for(&first, "completed").await;
    server.kill();
    let path = server.folder().join("tasks.db");
    let yesterday = "UPDATE idempotency_keys SET created_at = created_at - 86400000000";
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut database = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query(yesterday).execute(&mut database).await.unwrap();
    sqlx::Connection::close(database).await.unwrap();
    server.restart(&[]);
    assert_ne!(id(&submit(&server, "key", &dummy(1.0)).await), first);
}
