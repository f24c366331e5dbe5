//! `POST /tasks/cancel`: bulk cancellation.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::common::{Server, dummy, endless};

async fn cancel(server: &Server, query: &str) -> Value {
    let answer = server.post(&format!("/tasks/cancel?{query}"), &json!({})).await;
    assert_eq!(answer.status, 200, "{answer}");
    answer.body
}

fn counts(matched: usize, cancelled: usize, requested: usize) -> Value {
    json!({ "matched": matched, "cancelled": cancelled, "requested": requested })
}

#[tokio::test]
async fn all_that_match_are_cancelled_and_no_others() {
    let server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let mut tagged = dummy(0.0);
    tagged["tags"] = json!({ "run": "a" });
    let tagged = server.submit(tagged).await;
    let other = server.submit(dummy(0.0)).await;
    assert_eq!(cancel(&server, "tag.run=b").await, counts(0, 0, 0));
    assert_eq!(cancel(&server, "status=completed,failed").await, counts(0, 0, 0));
    assert_eq!(cancel(&server, "tag.run=a").await, counts(1, 1, 0));
    assert_eq!(server.task(&tagged).await["status"], "cancelled");
    assert_eq!(server.task(&other).await["status"], "pending");
    // It may or may not have stopped by the time of the response.
    let answer = cancel(&server, "task_type=dummy_very_long").await;
    assert!([counts(1, 0, 1), counts(1, 1, 0)].contains(&answer), "{answer}");
    server.wait_for(&running, "cancelled").await;
    server.wait_for(&other, "completed").await;
}

#[tokio::test]
async fn more_than_one_piece_is_cancelled() {
    let server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    for _ in 0..25 {
        join_all((0..100).map(|_| server.submit(dummy(0.0)))).await;
    }
    assert_eq!(cancel(&server, "status=pending").await, counts(2500, 2500, 0));
    assert_eq!(server.get("/tasks?status=pending").await.body, json!([]));
    assert_eq!(server.task(&running).await["status"], "running");
    // Their run slots are free again.
    let ready = server.get("/health/ready").await.body;
    assert_eq!((&ready["pending"], &ready["running"]), (&json!(0), &json!(1)));
}

#[tokio::test]
async fn an_empty_filter_is_refused() {
    let server = Server::start(&[]);
    for query in ["", "limit=5", "status=pending&cursor=1-1", "stat=pending"] {
        let answer = server.post(&format!("/tasks/cancel?{query}"), &json!({})).await;
        answer.only_fault();
    }
}
