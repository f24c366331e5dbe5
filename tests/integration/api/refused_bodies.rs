//! Clients that send a whole body before they read why it was refused.

use std::process::Command;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{PATIENCE, Server};

/// More than the server reads of any accepted body.
const BODY_BYTES: usize = 4 * 1024 * 1024;

/// Sends a request with a large body and reads the whole response only afterwards.
async fn send_all(server: &Server, head: &str, chunked: bool) -> String {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let (length, begin, end) = match chunked {
        true => (
            "Transfer-Encoding: chunked".to_owned(),
            format!("{BODY_BYTES:x}\r\n"),
            "\r\n0\r\n\r\n",
        ),
        false => (format!("Content-Length: {BODY_BYTES}"), String::new(), ""),
    };
    let head = format!("{head}\r\n{length}\r\n\r\n{begin}");
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b' '; BODY_BYTES]).await?;
        stream.write_all(end.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    let exchanged = tokio::time::timeout(PATIENCE, exchange).await.unwrap();
    assert!(exchanged.is_ok(), "{head}: {exchanged:?}, {}", String::from_utf8_lossy(&answer));
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_client_that_is_still_sending_sees_the_refusal() {
    let server = Server::start(&[]);
    let json = "Content-Type: application/json";
    for (head, status) in [
        (format!("POST /tasks HTTP/1.1\r\nHost: localhost\r\n{json}"), 413),
        ("POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain".to_owned(), 415),
        (format!("POST /tasks HTTP/1.1\r\nHost: evil.example\r\n{json}"), 421),
        (format!("POST /tasks?dry_run=maybe HTTP/1.1\r\nHost: localhost\r\n{json}"), 422),
        (format!("POST /nowhere HTTP/1.1\r\nHost: localhost\r\n{json}"), 404),
        (format!("PUT /tasks HTTP/1.1\r\nHost: localhost\r\n{json}"), 405),
    ] {
        for chunked in [false, true] {
            let answer = send_all(&server, &head, chunked).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
            assert!(answer.contains("connection: close\r\n"), "{answer}");
            assert!(answer.contains("{\"detail\":"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_client_without_a_key_sees_the_refusal() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("keys"), format!("{}\n", "7f3a9c1e5b8d2046".repeat(4)))
        .unwrap();
    let server = Server::start_in(folder, &["--api-key-file", "keys"], &[]);
    let head = "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let answer = send_all(&server, head, false).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[tokio::test]
async fn a_small_body_that_nobody_reads_leaves_the_connection_open() {
    let server = Server::start(&[]);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
    let last = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let requests = format!("{request}{}{last}", " ".repeat(1000));
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    let read = stream.read_to_string(&mut answers);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(answers.starts_with("HTTP/1.1 404 ") && answers.contains("HTTP/1.1 200 "), "{answers}");
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_is_not_told_to_send() {
    let server = Server::start(&[]);
    let request = "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                   Content-Length: 100000\r\n\r\n";
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 ") && !answer.contains(" 100 "), "{answer}");
}

#[tokio::test]
async fn python_sees_the_refusal() {
    let server = Server::start(&[]);
    let script = "
import sys, urllib.error, urllib.request
body = b' ' * (8 * 1024 * 1024)
request = urllib.request.Request(sys.argv[1], body, {'Content-Type': 'application/json'})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    opener.open(request)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
";
    let mut command = Command::new("python3");
    command.args(["-c", script, &server.url("/tasks")]);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    let Ok(output) = output else {
        crate::common::skips::skip("python3 is not installed");
        return;
    };
    let (said, failed) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.starts_with("413 {\"detail\":"), "{said}{failed}");
}
