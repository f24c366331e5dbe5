//! Requests that wait for a task do not block other clients.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::api::hostile_clients::{client, may_open};
use crate::common::{PATIENCE, Server, dummy, endless};

/// More than the limit of connections, fewer than may wait.
const MANY: usize = 1100;
/// Limit of concurrently waiting requests.
const MAX_WAITS: usize = 2048;
/// Requests beyond that limit.
const SURPLUS: usize = 3;

fn wait_for(id: &str) -> String {
    format!("GET /tasks/{id}?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Reads one complete response with a `Content-Length`.
async fn read_response(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let whole = async {
        loop {
            let text = String::from_utf8_lossy(&read);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let length = head.split_once("content-length: ").expect(&head).1;
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                if body.len() >= length {
                    return text.into_owned();
                }
            }
            let read = stream.read_buf(&mut read).await.unwrap();
            assert_ne!(read, 0, "the server closed the connection within a response");
        }
    };
    tokio::time::timeout(PATIENCE, whole).await.unwrap()
}

/// Checks liveness on a new connection.
async fn probe(server: &Server) {
    let request = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let response = read_response(&mut client(server, request).await).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

/// Opens connections with requests that wait for this task.
async fn waiting(server: &Server, id: &str, count: usize) -> Vec<TcpStream> {
    let mut waiting = Vec::new();
    for _ in 0..count {
        waiting.push(client(server, &wait_for(id)).await);
    }
    waiting
}

/// Waits until `count` connections have data; removes and returns them.
async fn take_answered(waiting: &mut Vec<TcpStream>, count: usize) -> Vec<TcpStream> {
    let begin = Instant::now();
    let mut answered = Vec::new();
    while answered.len() < count {
        assert!(begin.elapsed() < PATIENCE, "{} of {count} were answered", answered.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
        let is_answered = |stream: &mut TcpStream| stream.peek(&mut [0]).now_or_never().is_some();
        answered.extend(waiting.extract_if(.., is_answered));
    }
    answered
}

#[tokio::test]
async fn more_waiting_requests_than_connections_keep_nobody_out() {
    if !may_open(MANY as u64) {
        return;
    }
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    let mut waiting = waiting(&server, &id, MANY).await;

    probe(&server).await;
    let other = server.submit(dummy(0.0)).await;
    server.wait_for(&other, "completed").await;

    server.delete(&format!("/tasks/{id}")).await;
    let mut kept = 0;
    for stream in &mut waiting {
        let response = read_response(stream).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(response.contains("\"status\":\"cancelled\""), "{response}");
        kept += usize::from(!response.contains("connection: close"));
    }
    // Connections that were kept open are idle now. They may not use up the limit, so some were
    // closed.
    probe(&server).await;
    assert!(kept > 0 && kept < MANY, "{kept} connections were kept");
}

#[tokio::test]
async fn a_connection_goes_on_after_its_request_has_waited() {
    let server = Server::start(&[]);
    let id = server.submit(dummy(0.1)).await;
    let mut stream = client(&server, &wait_for(&id)).await;
    let response = read_response(&mut stream).await;
    assert!(response.contains("\"status\":\"completed\""), "{response}");
    assert!(!response.contains("connection: close"), "{response}");
    for path in [
        format!("/tasks/{id}?wait=60"),
        format!("/tasks/{}?wait=0.01", server.submit(endless()).await),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = read_response(&mut stream).await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }
}

#[tokio::test]
async fn too_many_waiting_requests_are_refused() {
    if !may_open(MAX_WAITS as u64) {
        return;
    }
    let server = Server::start(&[]);
    let id = server.submit(endless()).await;
    server.until_running(&id).await;
    let path = format!("/tasks/{id}");
    let mut waiting = waiting(&server, &id, MAX_WAITS + SURPLUS).await;
    let refusals = take_answered(&mut waiting, SURPLUS).await;
    for mut refused in refusals {
        let response = read_response(&mut refused).await;
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        let expected = format!("limit {MAX_WAITS})");
        assert!(response.contains(&expected), "{response}");
    }
    let answer = server.get(&format!("{path}?wait=1")).await;
    answer.error(503);
    assert_eq!(answer.header("retry-after"), "1");
    let prefer = server.request(reqwest::Method::GET, &path).header("prefer", "wait=5");
    server.send(prefer).await.error(503);
    assert_eq!(server.get(&format!("{path}?wait=0")).await.status, 200, "it does not wait");
    assert_eq!(server.task(&id).await["status"], "running");
    probe(&server).await;

    // A client that leaves frees a slot for another.
    drop(waiting.pop());
    let waited = |body: &serde_json::Value| body["status"] == "running";
    server.until(&format!("{path}?wait=0.01"), waited).await;
}
