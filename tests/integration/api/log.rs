//! `GET /tasks/{id}/log`: what a task says, while it runs and afterwards.

use std::path::PathBuf;
use std::time::Instant;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::common::{self, PATIENCE, Server, dummy, run_sql};
use crate::faults::server::{ASK, SERVER, TALKING};

/// Starts this test binary as a server whose `dummy_very_long` follows a script.
pub(crate) fn talking(env: &[(&str, &str)]) -> Server {
    Server::start_self(TempDir::new().unwrap(), SERVER, &[&[ASK, TALKING], env].concat())
}

/// Submits a task that says `say`, and then `then` once there is a file of this name.
pub(crate) async fn submit(server: &Server, say: &str, then: Value) -> String {
    let parameters = json!({ "say": say, "then": then });
    server
        .submit(
            json!({ "task_type": "dummy_very_long", "parameters": parameters, "max_attempts": 2 }),
        )
        .await
}

async fn log(server: &Server, id: &str, query: &str) -> String {
    let answer = server.get(&format!("/tasks/{id}/log{query}")).await;
    assert_eq!(answer.status, 200, "{answer}");
    answer.text
}

/// Lines without their times.
pub(crate) fn said(log: &str) -> Vec<&str> {
    let said = |line: &'_ str| line.split_once("Z ").map(|(_, said)| said.len());
    log.lines().map(|line| &line[line.len() - said(line).unwrap_or(line.len())..]).collect()
}

/// Asks the server something until this is so.
async fn until(server: &Server, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < PATIENCE, "still not so: {what}");
        server.get("/health/live").await;
    }
}

pub(crate) async fn until_said(server: &Server, id: &str, line: &str) -> String {
    let begin = Instant::now();
    loop {
        let text = log(server, id, "").await;
        if said(&text).contains(&line) {
            return text;
        }
        assert!(begin.elapsed() < PATIENCE, "{text}");
    }
}

fn file(server: &Server, id: &str, attempt: u32) -> PathBuf {
    server.folder().join(format!("tasks.db-state/logs/{id}.{attempt}.log"))
}

/// Reads a stream until it holds this text.
async fn read_until(response: &mut Response, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let part = timeout(PATIENCE, response.chunk()).await.expect("a line in time").unwrap();
        read += str::from_utf8(&part.expect("more of the stream")).unwrap();
    }
    read
}

#[tokio::test]
async fn a_log_holds_what_a_task_says_and_what_its_code_traces() {
    let server = talking(&[]);
    let id = submit(&server, "one\ntwo", json!("")).await;
    server.wait_for(&id, "completed").await;
    let path = format!("/tasks/{id}/log");
    let answer = server.get(&path).await;
    let expected = ["out one", "out two", "log INFO on a thread n=7", "err end of attempt 1"];
    assert_eq!(said(&answer.text), expected, "{answer}");
    let time = answer.text.split(' ').next().unwrap();
    assert_eq!((time.len(), &time[10..11], &time[23..]), (24, "T", "Z"), "{time}");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(answer.header("content-security-policy").contains("sandbox"));

    let head = server.send(server.request(Method::HEAD, &path)).await;
    assert_eq!((head.status, &*head.text), (200, ""), "{head}");
    assert_eq!(head.header("content-length"), answer.text.len().to_string());
    assert_eq!(said(&log(&server, &id, "?tail=1").await), expected[3..]);
    assert_eq!(log(&server, &id, "?tail=0").await, "");
    assert_eq!(log(&server, &id, "?attempt=1").await, answer.text);
    assert_eq!(log(&server, &id, "?follow=true").await, answer.text);
}

#[tokio::test]
async fn a_task_without_a_log_has_an_empty_one_and_a_missing_one_is_explained() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
    for query in ["", "?tail=5", "?follow=true", "?attempt=1"] {
        assert_eq!(log(&server, &id, query).await, "", "{query}");
    }
    assert!(!server.folder().join("tasks.db-state").exists(), "a file costs nothing before a line");
    let path = format!("/tasks/{id}/log");
    for query in ["?attempt=2", "?attempt=0", "?attempt=2&follow=true"] {
        let answer = server.get(&format!("{path}{query}")).await;
        assert!(answer.error(404).contains("the task has had 1 attempt"), "{answer}");
    }
    let unknown = server.get("/tasks/01a1a1a1-0000-7000-8000-000000000000/log").await;
    assert_eq!(unknown.error(404), "Task not found");
    for (query, expected) in [
        ("attempt=first", "expected the number of an attempt"),
        ("tail=-1", "a whole number from 0 to 100000"),
        ("follow=1", "expected true or false"),
        ("folow=true", "did you mean `follow`?"),
    ] {
        let fault = server.get(&format!("{path}?{query}")).await.only_fault();
        assert!(fault.contains(expected), "{fault}");
    }
    assert_eq!(server.delete(&path).await.status, 405);
}

#[tokio::test]
async fn a_follower_gets_each_line_until_the_task_has_ended() {
    let server = talking(&[]);
    let id = submit(&server, "first", json!("go")).await;
    let request = || server.request(Method::GET, &format!("/tasks/{id}/log?follow=true"));
    let mut follower = request().send().await.unwrap();
    assert_eq!(follower.headers()["x-accel-buffering"], "no");
    let mut read = read_until(&mut follower, "out first\n").await;
    until_said(&server, &id, "out first").await;
    let path = format!("/tasks/{id}/log?follow=true&tail=0");
    let later = server.request(Method::GET, &path).send().await.unwrap();
    server.write("go", "");
    // Attempt 1 fails, and attempt 2 succeeds.
    read += &read_until(&mut follower, "[attempt 2]\n").await;
    read += &timeout(PATIENCE, follower.text()).await.unwrap().unwrap();
    let [one, two] = [1, 2].map(|attempt| format!("err end of attempt {attempt}"));
    let each = ["out first", "log INFO on a thread n=7"];
    let expected = [&each[..], &[&one], &["[attempt 2]"], &each[..], &[&two]].concat();
    assert_eq!(said(&read), expected, "{read}");
    let later = timeout(PATIENCE, later.text()).await.unwrap().unwrap();
    assert!(!said(&later)[0].contains("out first"), "{later}");
    server.wait_for(&id, "completed").await;
    let each: Vec<_> = each.iter().copied().chain([&*two]).collect();
    assert_eq!(said(&log(&server, &id, "").await), each, "the last attempt by itself");
    assert!(log(&server, &id, "?attempt=1").await.ends_with("end of attempt 1\n"));
}

#[tokio::test]
async fn a_follower_of_one_attempt_ends_with_it_and_a_waiting_task_is_waited_for() {
    let server = talking(&[("MAX_RUNNING", "1")]);
    let first = submit(&server, "first", json!("go")).await;
    until_said(&server, &first, "out first").await;
    let second = submit(&server, "second", json!("")).await;
    let follow = async |id: &str, query: &str| {
        let path = format!("/tasks/{id}/log?follow=true{query}");
        server.request(Method::GET, &path).send().await.unwrap()
    };
    let pinned = follow(&first, "&attempt=1").await;
    let waiting = follow(&second, "").await;
    server.write("go", "");
    let pinned = timeout(PATIENCE, pinned.text()).await.unwrap().unwrap();
    assert!(pinned.ends_with("err end of attempt 1\n"), "{pinned}");
    let waiting = timeout(PATIENCE, waiting.text()).await.unwrap().unwrap();
    assert_eq!(said(&waiting)[0], "out second", "{waiting}");
    assert!(waiting.ends_with("err end of attempt 1\n"), "{waiting}");
}

#[tokio::test]
async fn a_killed_server_leaves_the_log_and_the_next_goes_on() {
    let mut server = talking(&[]);
    let id = submit(&server, "said", json!("go")).await;
    let before = until_said(&server, &id, "out said").await;
    server.restart_self(SERVER, &[ASK, TALKING]);
    let note = "server the attempt runs again after an interruption";
    let after = until_said(&server, &id, note).await;
    assert!(after.starts_with(&before), "{after}");
    // The file outlives its server; what it ends with is stored by the next one.
    server.write("go", "");
    server.wait_for(&id, "completed").await;
    let whole = log(&server, &id, "?attempt=1").await;
    assert!(whole.starts_with(&after), "{whole}");
    server.kill();
    run_sql(&server.folder().join("tasks.db"), &["DELETE FROM task_logs"]).await;
    server.restart(&[]);
    until(&server, "the ends are stored", async || stored(&server, &id).await == 2).await;
    std::fs::remove_dir_all(server.folder().join("tasks.db-state")).unwrap();
    assert_eq!(log(&server, &id, "?attempt=1").await, whole);
}

/// Number of logs of a task whose ends are in the database.
async fn stored(server: &Server, id: &str) -> i64 {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(server.folder().join("tasks.db"))
        .read_only(true);
    let mut database = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let count = "SELECT count(*) FROM task_logs JOIN tasks ON seq = task_seq WHERE id = ?1";
    let count = sqlx::query_scalar(count).bind(id).fetch_one(&mut database).await.unwrap();
    sqlx::Connection::close(database).await.unwrap();
    count
}

#[tokio::test]
async fn a_flood_is_kept_at_both_ends_and_its_end_for_as_long_as_the_task() {
    let server = talking(&[("LOG_RETENTION", "0")]);
    let id = submit(&server, "flood", json!("")).await;
    let mut follower =
        server.request(Method::GET, &format!("/tasks/{id}/log?follow=true")).send().await.unwrap();
    server.wait_for(&id, "completed").await;
    // It has not read a byte, and gets the begin and the end.
    let followed = read_until(&mut follower, "err end of attempt 1\n").await;
    assert!(followed.contains("bytes left out …]\n"), "it read {} bytes", followed.len());
    // Of 20 MB. The kernel's buffers of the connection may have taken some, too.
    assert!(followed.len() < 15_000_000, "{}", followed.len());

    until(&server, "the file is gone", async || !file(&server, &id, 1).exists()).await;
    let end = log(&server, &id, "").await;
    let (first, rest) = end.split_once('\n').unwrap();
    assert!(first.ends_with("bytes left out: only the end of this log is kept …]"), "{first}");
    assert!(
        followed.ends_with(rest) && rest.len() > 15_000 && rest.len() <= 16_384,
        "{}",
        rest.len()
    );
    assert_eq!(said(&log(&server, &id, "?tail=1").await), ["err end of attempt 1"]);

    let backup = common::run(server.folder(), &["backup", "copy.db"], &[]);
    assert!(backup.status.success());
    let copy = TempDir::new().unwrap();
    std::fs::copy(server.folder().join("copy.db"), copy.path().join("tasks.db")).unwrap();
    let restored = Server::start_in(copy, &[], &[]);
    assert_eq!(log(&restored, &id, "").await, end);
}

#[tokio::test]
async fn the_oldest_files_make_room_and_an_erased_task_takes_its_log_along() {
    let mut server = talking(&[]);
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = submit(&server, "one", json!("")).await;
        server.wait_for(&id, "completed").await;
        ids.push(id);
    }
    let folder = server.folder().to_owned();
    let kept = || {
        let is_kept =
            |id: &&String| folder.join(format!("tasks.db-state/logs/{id}.1.log")).exists();
        ids.iter().filter(is_kept).cloned().collect::<Vec<_>>()
    };
    assert_eq!(kept(), ids);
    server.restart_self(SERVER, &[ASK, TALKING, ("LOG_SPACE", "12288")]);
    until(&server, "three files of a block each are kept", async || kept().len() == 3).await;
    assert_eq!(kept(), ids[2..], "the oldest are gone");
    assert_eq!(said(&log(&server, &ids[0], "").await)[0], "out one");
    server.restart(&["--retention", "1s"]);
    until(&server, "the files of erased tasks are gone", async || kept().is_empty()).await;
    for id in &ids {
        assert_eq!(server.get(&format!("/tasks/{id}/log")).await.error(404), "Task not found");
        assert_eq!(stored(&server, id).await, 0);
    }
}

#[tokio::test]
async fn a_stop_ends_followers_and_keeps_the_log() {
    let mut server = talking(&[]);
    let id = submit(&server, "said", json!("go")).await;
    let path = format!("/tasks/{id}/log?follow=true");
    let mut follower = server.request(Method::GET, &path).send().await.unwrap();
    read_until(&mut follower, "out said\n").await;
    server.terminate();
    timeout(PATIENCE, async { while let Ok(Some(_)) = follower.chunk().await {} }).await.unwrap();
    assert_eq!(server.wait_exit().code(), Some(0));
    server.restart_self(SERVER, &[ASK, TALKING]);
    let text =
        until_said(&server, &id, "server the attempt runs again after an interruption").await;
    assert_eq!(said(&text)[0], "out said", "{text}");
}

#[tokio::test]
async fn a_follower_takes_the_place_of_a_stream_and_gives_it_back() {
    let server = talking(&[]);
    let id = submit(&server, "said", json!("go")).await;
    let streams = async |expected: &str| {
        let line = format!("task_server_event_streams {expected}\n");
        let counted = async || server.get("/metrics").await.text.contains(&line);
        until(&server, "the stream is counted", counted).await;
    };
    let path = format!("/tasks/{id}/log?follow=true");
    let follower = server.request(Method::GET, &path).send().await.unwrap();
    streams("1").await;
    let metrics = server.get("/metrics").await.text;
    assert!(metrics.contains("route=\"/tasks/{task_id}/log\""), "{metrics}");
    drop(follower);
    streams("0").await;
}
