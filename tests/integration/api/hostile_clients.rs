//! Clients that keep connections open without sending anything.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Server, tokenize};

/// Limit of concurrent connections.
const MAX_CONNECTIONS: usize = 1024;

/// True if this process can open this many connections.
pub(crate) fn may_open(connections: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Some(limit.current.unwrap_or(u64::MAX).max(connections + 500));
    let may = setrlimit(Resource::Nofile, Rlimit { current: wanted, ..limit }).is_ok();
    if !may {
        crate::common::skips::skip(&format!("this process may not open {connections} connections"));
    }
    may
}

/// Opens a connection and sends `request`.
pub(crate) async fn client(server: &Server, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until the server closes the connection.
async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_that_does_not_end_is_given_up() {
    let server = Server::start(&[]);
    let idle = client(&server, "").await;
    let head = client(&server, "GET /tasks HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
    let body = "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    let body = client(&server, body).await;
    let between = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let between = client(&server, between).await;
    let (idle, head, body, between) =
        tokio::join!(answer(idle), answer(head), answer(body), answer(between));
    assert_eq!(idle, "");
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 ") && body.contains("within 30 s"), "{body}");
    assert!(between.starts_with("HTTP/1.1 200 "), "{between}");
}

#[tokio::test]
async fn one_client_more_than_there_is_room_for_waits_for_its_turn() {
    if !may_open(MAX_CONNECTIONS as u64) {
        return;
    }
    let server = Server::start(&[]);
    // Held until its body has arrived.
    let half = "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{";
    let mut waiting = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        waiting.push(client(&server, half).await);
    }
    let last = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut last = client(&server, last).await;
    let mut first_byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(500), last.read_exact(&mut first_byte));
    assert!(early.await.is_err(), "served in addition to {MAX_CONNECTIONS} connections");
    drop(waiting.pop());
    last.read_exact(&mut first_byte).await.unwrap();
}

#[tokio::test]
async fn clients_leave_files_for_tasks_where_few_may_be_open() {
    if !may_open(400) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let starter = folder.path().join("start");
    // Not written by this process: a child forked by another test at that moment would keep the
    // file open.
    let write = "printf '#!/bin/sh\nulimit -Sn 256\nexec \"%s\" \"$@\"\n' \"$1\" > \"$0\"";
    let write = format!("{write} && chmod +x \"$0\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &write]).arg(&starter).arg(env!("CARGO_BIN_EXE_task-server"));
    assert!(shell.status().unwrap().success());
    let server = Server::start_binary(&starter, folder, &[]);
    server.write("in.txt", "some text");
    let mut clients = Vec::new();
    for _ in 0..400 {
        clients.push(client(&server, "GET / HTTP/1.1\r\n").await);
    }
    let id = server.submit(tokenize("in.txt", "out.json")).await;
    server.wait_for(&id, "completed").await;
}
