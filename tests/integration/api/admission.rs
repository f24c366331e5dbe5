//! Submissions refused because of earlier ones.

use futures_util::future::join_all;
use serde_json::json;

use crate::common::{Server, dummy, endless, run_sql, tokenize};

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let server = Server::start(&["--max-running", "1", "--max-pending", "1"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let pending = server.submit(dummy(0.0)).await;
    let refused = server.post("/tasks", &dummy(0.0)).await;
    assert!(refused.error(429).contains('1'), "{refused}");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() > 0, "{refused}");

    server.delete(&format!("/tasks/{pending}")).await;
    server.submit(dummy(0.0)).await;
}

#[tokio::test]
async fn racing_submissions_do_not_overfill_the_queue() {
    let server = Server::start(&["--max-running", "1", "--max-pending", "3"]);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    let body = dummy(0.0);
    let answers = join_all((0..12).map(|_| server.post("/tasks", &body))).await;
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 429).count();
    assert_eq!((accepted, refused), (3, 9), "{answers:#?}");
}

#[tokio::test]
async fn of_racing_submissions_an_exclusive_server_takes_one() {
    let server = Server::start(&["--exclusive"]);
    let body = endless();
    let answers = join_all((0..8).map(|_| server.post("/tasks", &body))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(accepted.len(), 1, "{answers:#?}");
    let id = accepted[0].body["task_id"].as_str().unwrap();
    for answer in refused {
        assert_eq!(answer.error(409), format!("A task is already running: {id}"));
    }
    assert_eq!(server.get("/tasks").await.body.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn every_unfinished_task_counts_for_an_exclusive_server() {
    let mut server = Server::start(&["--max-running", "1"]);
    let running = server.submit(endless()).await;
    let pending = server.submit(endless()).await;
    server.restart(&["--exclusive"]);
    server.delete(&format!("/tasks/{running}")).await;
    server.wait_for(&running, "cancelled").await;
    let refused = server.post("/tasks", &dummy(0.0)).await;
    assert_eq!(refused.error(409), format!("A task is already running: {pending}"));
}

#[tokio::test]
async fn an_output_belongs_to_one_unfinished_task_at_a_time() {
    let server = Server::start(&["--max-running", "1"]);
    server.write("in.txt", "some text");
    let blocker = server.submit(endless()).await;
    server.until_running(&blocker).await;
    let first = server.submit(tokenize("in.txt", "out.json")).await;
    std::os::unix::fs::symlink(".", server.folder().join("here")).unwrap();
    for spelling in ["out.json", "./out.json", "sub/../out.json", "here/out.json"] {
        let refused = server.post("/tasks", &tokenize("in.txt", spelling)).await;
        assert!(refused.error(409).contains(&first), "{spelling}: {refused}");
    }
    server.submit(tokenize("in.txt", "other.json")).await;

    server.delete(&format!("/tasks/{first}")).await;
    server.submit(tokenize("in.txt", "out.json")).await;
}

#[tokio::test]
async fn of_racing_submissions_with_one_output_one_is_taken() {
    let server = Server::start(&["--max-running", "1"]);
    let blocker = server.submit(endless()).await;
    server.until_running(&blocker).await;
    let body = tokenize("in.txt", "out.json");
    let answers = join_all((0..8).map(|_| server.post("/tasks", &body))).await;
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers.iter().filter(|answer| answer.status == 409).count();
    assert_eq!((accepted, refused), (1, 7), "{answers:#?}");
}

#[tokio::test]
async fn a_faulty_submission_is_told_its_faults_even_if_there_is_no_room() {
    let server = Server::start(&["--exclusive"]);
    server.submit(endless()).await;
    let answer = server.post("/tasks", &json!({ "task_type": "blur" })).await;
    assert!(answer.only_fault().starts_with("enum body.task_type: "), "{answer}");
}

/// Inserts pending tasks this build cannot run: one of an unknown type, one with unknown
/// parameters.
async fn add_unrunnable(server: &Server) -> [String; 2] {
    let ids = [1, 2].map(|number| format!("0000000{number}-0000-7000-8000-000000000000"));
    let [of_unknown_type, unreadable] = &ids;
    let insert = format!(
        "INSERT INTO tasks (id, task_type, status, priority, parameters, tags, max_attempts, \
                            created_at, updated_at) \
         VALUES ('{of_unknown_type}', 'of_another_branch', 'pending', 9, '{{}}', '{{}}', 1, 0, 0), \
                ('{unreadable}', 'dummy_short', 'pending', 9, '{{\"speed\": 1}}', '{{}}', 1, 0, 0)"
    );
    run_sql(&server.folder().join("tasks.db"), &[&insert]).await;
    ids
}

/// Waits until the server has marked these tasks as unrunnable.
async fn until_unrunnable(server: &Server, ids: &[String]) {
    let unrunnable = |task: &serde_json::Value| {
        task["waiting_because"].as_str().is_some_and(|it| it.contains("does not know"))
    };
    for id in ids {
        server.until(&format!("/tasks/{id}"), unrunnable).await;
    }
}

#[tokio::test]
async fn what_can_never_run_does_not_count_for_an_exclusive_server() {
    let mut server = Server::start(&[]);
    let mut later = dummy(0.0);
    later["run_at"] = json!("2100-01-01T00:00:00Z");
    let scheduled = server.submit(later).await;
    server.kill();
    let unrunnable = add_unrunnable(&server).await;
    server.restart(&["--exclusive"]);
    until_unrunnable(&server, &unrunnable).await;
    let refused = server.post("/tasks", &endless()).await;
    assert_eq!(refused.error(409), format!("A task is already running: {scheduled}"));
    assert_eq!(server.delete(&format!("/tasks/{scheduled}")).await.status, 200);
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    // Their end frees nothing, because they took nothing.
    for id in &unrunnable {
        assert_eq!(server.delete(&format!("/tasks/{id}")).await.status, 200);
    }
    let refused = server.post("/tasks", &endless()).await;
    assert_eq!(refused.error(409), format!("A task is already running: {running}"));
    assert_eq!(server.delete(&format!("/tasks/{running}")).await.status, 200);
    server.submit(endless()).await;
}

#[tokio::test]
async fn what_can_never_run_takes_no_place_in_the_queue() {
    let mut server = Server::start(&["--max-running", "1"]);
    server.kill();
    let unrunnable = add_unrunnable(&server).await;
    server.restart(&["--max-running", "1", "--max-pending", "1"]);
    until_unrunnable(&server, &unrunnable).await;
    let running = server.submit(endless()).await;
    server.until_running(&running).await;
    server.submit(endless()).await;
    assert_eq!(server.post("/tasks", &endless()).await.status, 429);
}
