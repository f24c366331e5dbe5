//! Clients that keep the server busy, each kind in its own way.

use std::fs;
use std::time::Duration;

use reqwest::header;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};

use crate::session::{Session, endless, nothing};

/// Number of clients of each kind.
const SUBMITTERS: usize = 24;
const TOKENIZERS: usize = 2;
const CANCELLERS: usize = 4;
const POLLERS: usize = 4;
const LISTERS: usize = 2;
const DROPPERS: usize = 4;

const TEXT: &str = "It was a bright cold day in April, and the clocks were striking thirteen. ";

pub(crate) fn spawn(session: &Session) -> Vec<JoinHandle<()>> {
    fs::write(session.folder().join("in.txt"), TEXT.repeat(4000)).unwrap();
    let mut clients = Vec::new();
    for number in 0..SUBMITTERS {
        clients.push(spawn_local(submit(session.clone(), number)));
    }
    for number in 0..TOKENIZERS {
        clients.push(spawn_local(tokenize(session.clone(), number)));
    }
    for _ in 0..CANCELLERS {
        clients.push(spawn_local(cancel(session.clone())));
    }
    for number in 0..POLLERS {
        clients.push(spawn_local(poll(session.clone(), number)));
    }
    for _ in 0..LISTERS {
        clients.push(spawn_local(list(session.clone())));
    }
    for number in 0..DROPPERS {
        clients.push(spawn_local(drop_connections(session.clone(), number)));
    }
    clients
}

/// Submits empty tasks, waits for them, and retries some.
async fn submit(session: Session, client: usize) {
    for round in 0_u64.. {
        if session.is_over() {
            return;
        }
        let mut body = nothing();
        let key = (round % 4 == 0).then(|| format!("{client}-{round}"));
        if round % 4 == 1 {
            body["tags"] = json!({ "client": client.to_string() });
        }
        let Some(id) = session.submit(&body, key).await else { continue };
        session.wait_for(&id, "completed").await;
        session.count("empty tasks");
        if round % 64 == 0 {
            session.send(session.post(&format!("/tasks/{id}/retry")), &[200]).await;
            session.count("empty tasks");
        }
    }
}

/// Tokenizes the same file repeatedly.
async fn tokenize(session: Session, client: usize) {
    let output = format!("out-{client}.json");
    while !session.is_over() {
        let body = json!({
            "task_type": "tokenize",
            "input_file_path": "in.txt",
            "output_file_path": output,
            "parameters": { "sleep_duration": 0 },
        });
        let Some(id) = session.submit(&body, None).await else { continue };
        session.wait_for(&id, "completed").await;
        if let Err(error) = fs::remove_file(session.folder().join(&output)) {
            session.fault(format!("{output} of {id}: {error}"));
        }
        session.count("tokenize tasks");
    }
}

/// Submits endless tasks and cancels them while a request waits for their end.
async fn cancel(session: Session) {
    while !session.is_over() {
        let Some(id) = session.submit(&endless(), None).await else { continue };
        let waiting = session.wait_for(&id, "cancelled");
        let cancelling = async {
            // Delayed, so that most tasks are cancelled while they run.
            tokio::time::sleep(Duration::from_millis(20)).await;
            session.send(session.delete(&format!("/tasks/{id}")), &[200, 202]).await;
        };
        tokio::join!(waiting, cancelling);
        session.count("cancelled tasks");
    }
}

/// Reads tasks, with and without an `If-None-Match` header.
async fn poll(session: Session, client: usize) {
    for round in 0_usize.. {
        if session.is_over() {
            return;
        }
        let Some(id) = session.some_id(client * 37 + round * 101) else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut request = session.get(&format!("/tasks/{id}"));
        if round % 2 == 0 {
            request = request.header(header::IF_NONE_MATCH, "\"0\"");
        }
        // 404 if retention has erased it.
        session.send(request, &[200, 404]).await;
        session.count("polls");
    }
}

/// Lists tasks, also by status and by tag.
async fn list(session: Session) {
    for round in 0_usize.. {
        if session.is_over() {
            return;
        }
        let path = [
            "/tasks",
            "/tasks?status=running",
            "/tasks?limit=1000&status=completed",
            "/tasks?tag.client=7&limit=20",
            "/tasks/current/info",
        ][round % 5];
        session.send(session.get(path), &[200]).await;
        session.count("lists");
    }
}

/// Drops connections at various points of a request.
async fn drop_connections(session: Session, client: usize) {
    let Some(endless) = session.submit(&endless(), None).await else { return };
    for round in client.. {
        if session.is_over() {
            return;
        }
        let request = match round % 4 {
            // Incomplete headers.
            0 => "GET /tasks HTTP/1.1\r\nHost: loc".to_owned(),
            // An incomplete body.
            1 => "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                  Content-Length: 1000\r\n\r\n{\"task_type\":"
                .to_owned(),
            // An abandoned long-poll.
            2 => format!("GET /tasks/{endless}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            // A long response that is read only in part.
            _ => "GET /tasks?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        };
        match TcpStream::connect(session.address()).await {
            Ok(mut stream) => {
                // The server may close the connection first.
                let _ = stream.write_all(request.as_bytes()).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
                let _ = stream.try_read(&mut [0; 100]);
                if round % 8 == 3 {
                    let _ = stream.read(&mut [0; 100]).await;
                }
            }
            Err(error) => session.fault(format!("cannot connect: {error}")),
        }
        session.count("dropped connections");
    }
}
