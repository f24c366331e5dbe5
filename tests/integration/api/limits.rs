//! `--limit TYPE=N`, and the reason a pending task is queued.

use serde_json::json;

use crate::common::{Server, dummy, endless};

#[tokio::test]
async fn a_full_type_holds_up_no_other() {
    let server = Server::start(&["--limit", "dummy_very_long=2"]);
    let mut long = Vec::new();
    for _ in 0..4 {
        long.push(server.submit(endless()).await);
    }
    let short = server.submit(dummy(0.0)).await;
    server.wait_for(&short, "completed").await;
    let running = server.get("/tasks?status=running").await.body;
    assert_eq!(running.as_array().unwrap().len(), 2);
    for (position, id) in [(1, &long[2]), (2, &long[3])] {
        let task = server.task(id).await;
        assert_eq!(task["waiting_because"], "2 of 2 dummy_very_long tasks running");
        assert_eq!(task["queue_position"], position);
    }
    server.delete(&format!("/tasks/{}", long[0])).await;
    server.until_running(&long[2]).await;
    assert_eq!(server.task(&long[3]).await["queue_position"], 1);
}

#[tokio::test]
async fn a_waiting_task_tells_its_place_in_the_queue() {
    let server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let last = server.submit(dummy(0.0)).await;
    let mut urgent = dummy(0.0);
    urgent["priority"] = json!(1);
    let urgent = server.submit(urgent).await;
    let list = server.get("/tasks?status=pending").await.body;
    for (task, id, position) in [(&list[0], &urgent, 1), (&list[1], &last, 2)] {
        assert_eq!(task["task_id"], json!(id));
        assert_eq!(task["queue_position"], position);
        assert_eq!(task["waiting_because"], "1 of 1 tasks running");
    }
    let running = server.task(&running).await;
    assert!(running.get("queue_position").is_none(), "{running:#}");
}

#[tokio::test]
async fn a_running_task_tells_when_it_may_be_done() {
    let server = Server::start(&[]);
    let body = json!({ "task_type": "dummy_short", "parameters": { "duration": 3, "steps": 30 } });
    let id = server.submit(body).await;
    let path = format!("/tasks/{id}");
    let task = server.until(&path, |task| task["progress"].as_f64() > Some(10.0)).await;
    let eta = task["eta_seconds"].as_f64().unwrap();
    assert!(eta > 0.0 && eta < 60.0, "{task:#}");
    let task = server.wait_for(&id, "completed").await;
    assert!(task.get("eta_seconds").is_none(), "{task:#}");
}

#[tokio::test]
async fn a_limit_of_a_type_that_does_not_exist_yet_is_pointed_out() {
    let server = Server::start(&["--limit", "tokenise=2"]);
    let line = server.until_logged(&["unknown task type `tokenise`"]);
    assert!(line.contains("did you mean `tokenize`?"), "{line}");
}

#[test]
fn a_limit_that_is_no_number_is_refused() {
    for (limit, expected) in [("tokenize", "tokenize=2"), ("tokenize=0", "tokenize=2")] {
        let folder = tempfile::TempDir::new().unwrap();
        let (code, said) = crate::common::refusal(folder.path(), &["--limit", limit], &[]);
        assert_ne!(code, Some(0));
        assert!(said.contains(expected), "{said}");
    }
}
