//! Thousands of clients that disconnect in the middle of a submission.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use reqwest::{Client, Method};
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::{Server, dummy};

/// Number of disconnecting clients unless `DISCONNECTS` sets another, such as 10000.
const CLIENTS: usize = 3000;
/// Number of concurrent clients.
const AT_ONCE: usize = 64;

fn key(number: usize) -> String {
    format!("client {number}")
}

/// Sends part of a submission and disconnects; every third client sends all of it.
async fn goes_away(address: &str, number: usize) {
    let body = dummy(0.0).to_string();
    let request = format!(
        "POST /tasks HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {}\r\nContent-Length: {}\r\n\r\n{body}",
        key(number),
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A stride that cuts at every byte over time.
    let sent = if number.is_multiple_of(3) { request.len() } else { number * 101 % request.len() };
    stream.write_all(&request.as_bytes()[..sent]).await.unwrap();
    // Clients that have sent all disconnect at different times during the commit.
    for _ in 0..if sent == request.len() { number % 50 } else { 0 } {
        tokio::task::yield_now().await;
    }
    if number.is_multiple_of(2) {
        // Resets the connection instead of closing it.
        set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
}

/// Sends the same submission completely, for some clients twice. Returns the id of its task.
async fn comes_back(server: &Server, client: &Client, number: usize) -> String {
    let mut ids = HashSet::new();
    for _ in 0..if number.is_multiple_of(10) { 2 } else { 1 } {
        let request = client.request(Method::POST, server.url("/tasks")).json(&dummy(0.0));
        let answer = server.send(request.header("idempotency-key", key(number))).await;
        assert_eq!(answer.status, 200, "{answer}");
        ids.insert(answer.body["task_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 1, "one key, several tasks: {ids:?}");
    ids.into_iter().next().unwrap()
}

/// Runs a round of clients that disconnect and come back. Returns the number of tasks between the
/// two, and the ids of all of them.
async fn round(server: &Server, numbers: std::ops::Range<usize>) -> (usize, HashSet<String>) {
    let address = server.address();
    let away = iter(numbers.clone()).map(|number| goes_away(address, number));
    away.buffer_unordered(AT_ONCE).collect::<()>().await;
    let stored = all_ids(server).await.len();
    // Its connections are closed on drop, unlike those of the server's own client.
    let client = Client::builder().no_proxy().build().unwrap();
    let back = iter(numbers).map(|number| comes_back(server, &client, number));
    (stored, back.buffer_unordered(AT_ONCE).collect().await)
}

async fn all_ids(server: &Server) -> HashSet<String> {
    let mut ids = HashSet::new();
    let mut next = Some("/tasks?limit=1000".to_owned());
    while let Some(path) = next {
        let page = server.get(&path).await;
        let tasks = page.body.as_array().unwrap();
        ids.extend(tasks.iter().map(|task| task["task_id"].as_str().unwrap().to_owned()));
        next = page.next_page().map(str::to_owned);
    }
    ids
}

#[tokio::test]
async fn clients_that_go_away_leave_nothing_behind_but_one_task_each() {
    let clients = match std::env::var("DISCONNECTS") {
        Ok(number) => number.parse().expect("DISCONNECTS is a number"),
        Err(_) => CLIENTS,
    };
    let server = Server::start(&[]);
    let descriptors = format!("/proc/{}/fd", server.process_id());
    let open = || std::fs::read_dir(&descriptors).map(Iterator::count);
    let idle = |ready: &Value| ready["pending"] == 0 && ready["running"] == 0;
    // Afterwards everything that is opened once and kept is open.
    let (_, mut ids) = round(&server, 0..200).await;
    let before = server.until("/health/ready", idle).await;
    let open_before = open();

    let (stored, more) = round(&server, 200..200 + clients).await;
    ids.extend(more);
    assert!(
        stored > 200 && stored < 200 + clients,
        "{stored}: the cuts do not hit the middle of submissions"
    );
    assert_eq!(ids.len(), 200 + clients, "one task per key");
    assert_eq!(all_ids(&server).await, ids);
    assert_eq!(server.until("/health/ready", idle).await, before);
    match open_before {
        Ok(level) => {
            server.until("/health/ready", |_| open().unwrap() <= level).await;
        }
        Err(error) => {
            crate::common::skips::skip(&format!("cannot count file descriptors: {error}"))
        }
    }

    // No transaction is left open: a new one can begin, and the write-ahead log can be truncated.
    let options = SqliteConnectOptions::new().filename(server.folder().join("tasks.db"));
    let mut database = options.connect().await.unwrap();
    let transaction = database.begin_with("BEGIN IMMEDIATE").await.unwrap();
    transaction.rollback().await.unwrap();
    let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut database).await;
    assert_eq!(emptied.unwrap().get::<i64, _>("busy"), 0);
    database.close().await.unwrap();
    let id = server.submit(dummy(0.0)).await;
    server.wait_for(&id, "completed").await;
}
