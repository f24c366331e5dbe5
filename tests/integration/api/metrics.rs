//! `/metrics`.

use serde_json::json;

use crate::common::{Server, dummy, endless, tokenize};

/// Value of a line of `/metrics`.
async fn metric(server: &Server, line: &str) -> f64 {
    let response = server.request(reqwest::Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let form = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(form.starts_with("application/openmetrics-text; version=1.0.0"), "{form}");
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {line} in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn metrics_follow_what_happens_to_tasks() {
    let server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(dummy(0.0)).await;
    assert_eq!(metric(&server, r#"task_server_tasks{status="running"}"#).await, 1.0);
    assert_eq!(metric(&server, r#"task_server_tasks{status="pending"}"#).await, 1.0);
    assert!(metric(&server, "task_server_oldest_pending_seconds").await > 0.0);
    server.delete(&format!("/tasks/{pending}")).await;
    server.delete(&format!("/tasks/{running}")).await;
    server.wait_for(&running, "cancelled").await;
    let mut fails = tokenize("absent.txt", "out.json");
    fails["max_attempts"] = 2.into();
    let failed = server.submit(fails).await;
    server.wait_for(&failed, "failed").await;
    for _ in 0..3 {
        let id = server.submit(dummy(0.0)).await;
        server.wait_for(&id, "completed").await;
    }
    for (task_type, transition, count) in [
        ("dummy_short", "submitted", 4.0),
        ("dummy_short", "started", 3.0),
        ("dummy_short", "completed", 3.0),
        ("dummy_short", "cancelled", 1.0),
        ("dummy_very_long", "cancelled", 1.0),
        ("tokenize", "started", 2.0),
        ("tokenize", "returned", 1.0),
        ("tokenize", "failed", 1.0),
    ] {
        let labels = format!(r#"{{task_type="{task_type}",transition="{transition}"}}"#);
        let line = format!("task_server_task_transitions_total{labels}");
        assert_eq!(metric(&server, &line).await, count, "{line}");
    }
    for (line, value) in [
        (r#"task_server_tasks{status="pending"}"#, 0.0),
        (r#"task_server_tasks{status="completed"}"#, 3.0),
        (r#"task_server_tasks{status="cancelled"}"#, 2.0),
        (r#"task_server_tasks{status="failed"}"#, 1.0),
        (r#"task_server_task_run_seconds_count{task_type="tokenize"}"#, 2.0),
        (r#"task_server_task_wait_seconds_count{task_type="dummy_short"}"#, 3.0),
        ("task_server_oldest_pending_seconds", 0.0),
        ("task_server_event_streams", 0.0),
    ] {
        assert_eq!(metric(&server, line).await, value, "{line}");
    }
    for line in [
        "task_server_commit_seconds_count",
        "task_server_commit_changes_sum",
        "task_server_write_ahead_log_bytes",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(metric(&server, line).await > 0.0, "{line}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_what_clients_make_up() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.task(&id).await;
    server.get("/tasks/not-an-id").await;
    server.get("/made/up").await;
    server.send(server.request(reqwest::Method::from_bytes(b"MADEUP").unwrap(), "/tasks")).await;
    for (method, route, status, count) in [
        ("POST", "/tasks", 200, 1.0),
        ("GET", "/tasks/{task_id}", 200, 1.0),
        ("GET", "/tasks/{task_id}", 404, 1.0),
        ("GET", "none", 404, 1.0),
        ("other", "/tasks", 405, 1.0),
    ] {
        let labels = format!(r#"{{method="{method}",route="{route}",status="{status}"}}"#);
        let line = format!("task_server_http_requests_total{labels}");
        assert_eq!(metric(&server, &line).await, count, "{line}");
    }
}

#[tokio::test]
async fn counts_survive_a_restart_and_what_is_erased() {
    let mut server = Server::start(&["--max-running", "1"]);
    let ended = server.submit(dummy(0.0)).await;
    server.wait_for(&ended, "completed").await;
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    server.submit(dummy(0.0)).await;
    let counts = json!({ "cancelled": 0, "completed": 1, "failed": 0, "pending": 1, "running": 1 });
    let stats = server.get("/stats").await.body;
    assert_eq!(stats["counts"], counts);
    let minute = stats["minutes"].as_array().unwrap().last().unwrap();
    assert_eq!((&minute["submitted"], &minute["completed"]), (&json!(3), &json!(1)), "{stats:#}");
    server.restart(&["--max-running", "1", "--retention", "1s"]);
    server
        .until("/stats", |stats| {
            stats["counts"]
                == json!({ "cancelled": 0, "completed": 0, "failed": 0, "pending": 1, "running": 1 })
        })
        .await;
}
