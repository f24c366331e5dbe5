//! `watch`: live, across restarts, with Ctrl-C, and without an event stream.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;
use tempfile::TempDir;

use crate::cli::program::{Started, ask, ask_at};
use crate::cli::stub::{Forwarder, answering, response};
use crate::common::{Server, dummy, endless};

#[tokio::test]
async fn progress_is_told_in_lines_where_nobody_looks() {
    let server = Server::start(&[]);
    let mut body = endless();
    body["parameters"] = json!({ "duration": 100_000, "steps": 1_000_000 });
    let id = server.submit(body).await;
    let mut watching = Started::new(&server.url(""), server.folder(), &["watch", &id]);
    watching.until("running 0% Processing step");
    server.delete(&format!("/tasks/{id}")).await;
    let watched = watching.end().with(2);
    assert!(watched.stderr.lines().last().unwrap().contains("cancelled 0%"), "{watched}");
    assert!(watched.stdout.contains(&format!("{id}  cancelled  dummy_very_long  0%")), "{watched}");
}

#[tokio::test]
async fn json_is_one_document_an_event() {
    let server = Server::start(&["--max-running", "1"]);
    let first = server.submit(dummy(0.3)).await;
    let second = server.submit(dummy(0.0)).await;
    let watched = ask(&server, &["watch", &first, &second, "--json"]).with(0);
    assert_eq!(watched.stderr, "");
    for id in [&first, &second] {
        let events: Vec<_> =
            watched.json_lines().into_iter().filter(|task| task["task_id"] == **id).collect();
        assert_eq!(events.last().unwrap()["status"], "completed");
    }
    let over = ask(&server, &["watch", &first, "--json"]).with(0);
    assert_eq!(over.json_lines().len(), 1, "{over}");
}

#[tokio::test]
async fn ctrl_c_leaves_the_task_running_and_tells_how_to_go_on() {
    let server = Server::start(&[]);
    let args = ["submit", "--wait", "dummy_very_long", "-p", "duration=1e6"];
    let mut waiting = Started::new(&server.url(""), server.folder(), &args);
    waiting.until("running");
    waiting.interrupt();
    let ended = waiting.end().with(130);
    let task = &server.get("/tasks").await.body[0];
    assert_eq!(task["status"], "running");
    assert_eq!(task["cancel_requested_at"], json!(null));
    let (id, url) = (task["task_id"].as_str().unwrap(), server.url(""));
    for verb in ["watch", "cancel"] {
        assert!(ended.stderr.contains(&format!("task-server {verb} --url {url} {id}")), "{ended}");
    }
    assert_eq!(ended.stdout, "");
}

#[tokio::test]
async fn watching_goes_on_when_the_server_is_back() {
    let mut server = Server::start(&[]);
    let forwarder = Forwarder::to(server.address());
    let id = server.submit(endless()).await;
    let mut watching = Started::new(&forwarder.url, server.folder(), &["watch", &id]);
    watching.until("running");
    server.kill();
    watching.until("lost the connection");
    server.restart(&[]);
    forwarder.moved(server.address());
    watching.until("connected again");
    server.delete(&format!("/tasks/{id}")).await;
    let ended = watching.end().with(2);
    assert!(ended.stdout.contains("cancelled"), "{ended}");
    assert_eq!(ended.stderr.matches("lost the connection").count(), 1, "{ended}");
}

#[tokio::test]
async fn watching_goes_on_after_a_polite_restart() {
    let mut server = Server::start(&["--shutdown-grace", "0s"]);
    let forwarder = Forwarder::to(server.address());
    let id = server.submit(endless()).await;
    let mut watching = Started::new(&forwarder.url, server.folder(), &["watch", &id]);
    watching.until("running");
    let args = ["submit", "--wait", "dummy_very_long", "-p", "duration=1e6"];
    let mut waiting = Started::new(&forwarder.url, server.folder(), &args);
    waiting.until("running");
    server.terminate();
    server.wait_exit();
    server.restart(&[]);
    forwarder.moved(server.address());
    watching.until("connected again");
    waiting.until("connected again");
    ask(&server, &["cancel", "--status", "pending,running"]).with(0);
    watching.end().with(2);
    waiting.end().with(2);
}

#[tokio::test]
async fn a_server_without_streams_is_asked_again_and_again() {
    let folder = TempDir::new().unwrap();
    let id = "01a20732-f5d8-72b0-90ab-6e8c0dbec33e";
    let polls = AtomicU32::new(0);
    let url = answering(move |request, _| {
        if request.contains("/events") {
            return response("404 Not Found", "application/json", r#"{"detail":"Not Found"}"#);
        }
        let status = match polls.fetch_add(1, Ordering::SeqCst) {
            0 => "running",
            _ => "completed",
        };
        let task = json!({
            "task_id": id,
            "task_type": "dummy_short",
            "status": status,
            "progress": 50,
            "message": "\u{1b}[2Jhalf\n",
            "created_at": "2026-01-31T15:30:00Z",
        });
        response("200 OK", "application/json", &task.to_string())
    });
    let watched = ask_at(&url, folder.path(), &["watch", id]).with(0);
    assert!(watched.stderr.contains(r"running 50% \u{1b}[2Jhalf\n"), "{watched}");
    assert!(watched.stderr.contains(r"completed 50% \u{1b}[2Jhalf\n"), "{watched}");
    assert!(watched.stdout.contains(r"\u{1b}[2Jhalf\n"), "{watched}");
}
