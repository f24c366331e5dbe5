//! SIGTERM at bad moments.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Server, dummy, endless, tokenize};

const ARGS: [&str; 4] = ["--shutdown-grace", "1s", "--cpu-slots", "1"];
/// The grace and the allowed overrun; less than the 30 s timeout of a request body.
const GRACE_AND_MORE: Duration = Duration::from_secs(25);

/// Sends an incomplete request; the server has to close the connection in the end.
async fn half_sent(server: &Server, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Submits until the server refuses.
async fn load(server: &Server) {
    loop {
        let request = server.request(reqwest::Method::POST, "/tasks").json(&dummy(0.0));
        match request.send().await {
            Ok(answer) if answer.status() == 200 => {}
            Ok(answer) => return assert_eq!(answer.status(), 503),
            // The socket is closed already.
            Err(_) => return,
        }
    }
}

#[tokio::test]
async fn a_stop_in_the_midst_of_everything_keeps_to_its_grace_and_costs_nothing() {
    let mut server = Server::start(&ARGS);
    server.write("in.txt", "the quick brown fox jumps over the lazy dog\n".repeat(2_000_000));
    let mut tasks = Vec::new();
    for number in 0..3 {
        // One of these runs on a thread that cannot be stopped from outside; the others wait for
        // it.
        tasks.push(server.submit(tokenize("in.txt", &format!("{number}.json"))).await);
        tasks.push(server.submit(endless()).await);
    }
    let mut before = Vec::new();
    for id in &tasks {
        before.push(server.until_running(id).await);
    }
    // A third interruption would fail the tasks.
    for _ in 0..3 {
        let header = half_sent(&server, "POST /tasks HTTP/1.1\r\nHost: local").await;
        let host = format!("Host: {}\r\n", server.address());
        let body = format!(
            "POST /tasks HTTP/1.1\r\n{host}Content-Type: application/json\r\n\
             Content-Length: 1000\r\n\r\n{{\"task_type\":"
        );
        let body = half_sent(&server, &body).await;
        let waits = join_all(tasks.iter().map(async |id| {
            let answer = server.get(&format!("/tasks/{id}?wait=60")).await;
            assert_eq!(answer.body["status"], "running", "{answer}");
        }));
        let stop = async {
            // The load has started by then.
            server.until("/tasks?limit=1", |tasks| tasks[0]["task_type"] == "dummy_short").await;
            server.terminate();
            Instant::now()
        };
        let (stopped_at, _, _) = futures_util::join!(stop, waits, load(&server));
        for mut stream in [header, body] {
            let mut rest = Vec::new();
            // Closed with or without an error.
            let _ = stream.read_to_end(&mut rest).await;
        }
        assert_eq!(server.wait_exit().code(), Some(0));
        let took = stopped_at.elapsed();
        assert!(took < GRACE_AND_MORE, "the server took {took:?} to stop");

        server.restart(&ARGS);
        for task in &mut before {
            *task = server.until_running_again(task).await;
            assert_eq!((&task["attempt"], &task["error"]), (&json!(1), &Value::Null), "{task:#}");
        }
    }
    let all_done = |tasks: &Value| tasks.as_array().unwrap().is_empty();
    server.until("/tasks?task_type=dummy_short&status=pending,running,failed", all_done).await;
}

#[tokio::test]
async fn a_stop_in_the_moment_of_listening_is_a_polite_one() {
    let mut server = Server::start(&[]);
    for _ in 0..10 {
        server.terminate();
        assert_eq!(server.wait_exit().code(), Some(0));
        server.restart(&[]);
    }
}
